package compat;

import java.io.File;
import java.io.IOException;
import java.net.ServerSocket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.TimeUnit;

/** Kafka's brokers, each a process with a folder of its own: broker N of N = 1, 2, … They end with this process. */
final class Brokers {
    /** Where they keep their metadata. */
    static final String ROOT = "/kafka";
    /** Long enough for a busy machine, and what a dead broker is noticed after. */
    private static final int SESSION_MS = 10_000;

    private final String zookeeper;
    private final Path folder = Path.of(System.getenv("WORK"), "brokers");
    private final Map<Integer, Integer> ports = new TreeMap<>();
    private final Map<Integer, Process> processes = new TreeMap<>();

    Brokers(String zookeeper, int count) throws IOException {
        this.zookeeper = zookeeper;
        List<ServerSocket> held = new ArrayList<>();
        for (int broker = 1; broker <= count; broker++) {
            ServerSocket socket = new ServerSocket(0);
            held.add(socket);
            ports.put(broker, socket.getLocalPort());
        }
        for (ServerSocket socket : held) {
            socket.close();
        }
        Runtime.getRuntime().addShutdownHook(new Thread(() -> processes.values().forEach(Process::destroyForcibly)));
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
        List<String> command = List.of("java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC",
                "-Dlog4j.configuration=file:" + System.getenv("BROKER_LOGGING"), "-cp", System.getenv("BROKER_JARS"), "kafka.Kafka", settings.toString());
        File log = home.resolve("log").toFile();
        processes.put(broker, new ProcessBuilder(command).redirectErrorStream(true)
                .redirectOutput(ProcessBuilder.Redirect.appendTo(log)).start());
    }

    /** SIGKILL: its session ends by its timeout. */
    void kill(int broker) throws InterruptedException {
        processes.get(broker).destroyForcibly().waitFor();
    }

    /** SIGTERM: it hands its partitions over, closes its session and ends. */
    void stop(int broker) throws InterruptedException {
        Process process = processes.get(broker);
        process.destroy();
        Checks.that(process.waitFor(100, TimeUnit.SECONDS), "broker " + broker + " does not end at SIGTERM");
    }

    static int other(int broker) {
        return 3 - broker;
    }
}
