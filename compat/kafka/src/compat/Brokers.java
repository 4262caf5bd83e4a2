package compat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/** Kafka's brokers, each a process with a folder of its own: broker N of N = 1, 2, … They end with this process. */
final class Brokers {
    /** Where they keep their metadata. */
    static final String ROOT = "/kafka";
    /** Long enough for a busy machine, and what a dead broker is noticed after. */
    private static final int SESSION_MS = 10_000;

    private final String zookeeper;
    private final Path folder = Path.of(System.getenv("WORK"), "brokers");
    private final Map<Integer, Integer> ports = new TreeMap<>();
    private final Processes processes = new Processes(folder);

    Brokers(String zookeeper, int count) throws IOException {
        this.zookeeper = zookeeper;
        List<Integer> free = Processes.freePorts(count);
        for (int broker = 1; broker <= count; broker++) {
            ports.put(broker, free.get(broker - 1));
        }
    }

    /** For Kafka's clients. */
    String addresses() {
        List<String> addresses = new ArrayList<>();
        ports.values().forEach(port -> addresses.add("127.0.0.1:" + port));
        return String.join(",", addresses);
    }

    void startAll() throws IOException {
        for (int broker : ports.keySet()) {
            start(broker);
        }
    }

    void start(int broker) throws IOException {
        Path home = folder.resolve(String.valueOf(broker));
        Files.createDirectories(home);
        Path settings = home.resolve("server.properties");
        Files.write(settings, List.of(
                "broker.id=" + broker,
                "listeners=PLAINTEXT://127.0.0.1:" + ports.get(broker),
                "zookeeper.connect=" + zookeeper + ROOT,
                "zookeeper.session.timeout.ms=" + SESSION_MS,
                "zookeeper.connection.timeout.ms=60000",
                "log.dirs=" + home.resolve("data"),
                "auto.create.topics.enable=false",
                "offsets.topic.replication.factor=2",
                "offsets.topic.num.partitions=4",
                "transaction.state.log.replication.factor=2",
                "transaction.state.log.num.partitions=4",
                "transaction.state.log.min.isr=1",
                "group.initial.rebalance.delay.ms=0",
                "authorizer.class.name=kafka.security.authorizer.AclAuthorizer",
                "super.users=User:ANONYMOUS",
                // Small, for a small machine.
                "log.cleaner.dedupe.buffer.size=16777216",
                "num.network.threads=2",
                "num.io.threads=4"));
        processes.start("broker-" + broker, List.of("-Xmx256m", "-Dlog4j.configuration=file:" + System.getenv("BROKER_LOGGING"),
                "-cp", System.getenv("BROKER_JARS"), "kafka.Kafka", settings.toString()));
    }

    /** SIGKILL: its session ends by its timeout. */
    void kill(int broker) throws InterruptedException {
        processes.kill("broker-" + broker);
    }

    /** SIGTERM: it hands its partitions over, closes its session and ends. */
    void stop(int broker) throws InterruptedException {
        processes.stop("broker-" + broker);
    }

    static int other(int broker) {
        return 3 - broker;
    }
}
