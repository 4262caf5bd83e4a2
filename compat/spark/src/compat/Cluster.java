package compat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.OutputStream;
import java.net.URI;
import java.net.URL;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.TimeUnit;
import org.apache.spark.launcher.JavaModuleOptions;

/** Spark's masters, workers and applications, each a process. They end with this process. */
final class Cluster {
    /** Where the masters keep what they must not forget. */
    static final String ROOT = "/spark";

    private final String zookeeper;
    private final Path folder = Path.of(System.getenv("WORK"), "processes");
    /** Of each master: where it listens, and where its page is. */
    private final Map<Integer, int[]> masters = new TreeMap<>();
    final Processes processes = new Processes(folder);
    private final ObjectMapper json = new ObjectMapper();

    Cluster(String zookeeper, int count) throws IOException {
        this.zookeeper = zookeeper;
        List<Integer> free = Processes.freePorts(2 * count);
        for (int master = 1; master <= count; master++) {
            masters.put(master, new int[] {free.get(2 * master - 2), free.get(2 * master - 1)});
        }
    }

    /** All masters, for workers and applications. */
    String addresses() {
        List<String> addresses = new ArrayList<>();
        masters.values().forEach(ports -> addresses.add("127.0.0.1:" + ports[0]));
        return "spark://" + String.join(",", addresses);
    }

    void startMaster(int master) throws IOException {
        int[] ports = masters.get(master);
        processes.start("master-" + master, arguments("org.apache.spark.deploy.master.Master",
                "--host", "127.0.0.1", "--port", String.valueOf(ports[0]), "--webui-port", String.valueOf(ports[1])));
    }

    void startWorker(int worker) throws IOException {
        processes.start("worker-" + worker, arguments("org.apache.spark.deploy.worker.Worker", "--host", "127.0.0.1", "--cores", "4", "--memory", "4g",
                "--work-dir", folder.resolve("work-" + worker).toString(), "--webui-port", "0", addresses()));
    }

    void startApplication(String name) throws IOException {
        processes.startSpeaker(name, arguments("compat.Application", name, addresses()));
    }

    private List<String> arguments(String... words) {
        List<String> arguments = new ArrayList<>(List.of("-Xmx512m", "-Dlog4j.configurationFile=" + System.getenv("PROCESS_LOGGING"),
                "-Dspark.deploy.recoveryMode=ZOOKEEPER", "-Dspark.deploy.zookeeper.url=" + zookeeper, "-Dspark.deploy.zookeeper.dir=" + ROOT));
        arguments.addAll(List.of(JavaModuleOptions.defaultModuleOptions().split(" ")));
        arguments.addAll(List.of("-cp", System.getenv("PROCESS_CLASSES")));
        arguments.addAll(List.of(words));
        return arguments;
    }

    /** What an application makes of a number. */
    String ask(String application, int number) throws IOException {
        Process process = processes.of(application);
        OutputStream input = process.getOutputStream();
        input.write((number + "\n").getBytes(StandardCharsets.UTF_8));
        input.flush();
        BufferedReader output = process.inputReader();
        return output.readLine();
    }

    /** The end of its input ends an application. */
    void finish(String application) throws Exception {
        Process process = processes.of(application);
        process.getOutputStream().close();
        Checks.that(process.waitFor(100, TimeUnit.SECONDS), application + " does not end");
        Checks.equal(0, process.exitValue());
    }

    /** What a master's page tells programs; nothing while there is none. */
    JsonNode page(int master) {
        try {
            URL address = URI.create("http://127.0.0.1:" + masters.get(master)[1] + "/json/").toURL();
            return json.readTree(address);
        } catch (IOException none) {
            return json.createObjectNode();
        }
    }

    /** The master that leads; 0 while none does. */
    int leader() {
        for (int master : masters.keySet()) {
            if (page(master).path("status").asText().equals("ALIVE")) {
                return master;
            }
        }
        return 0;
    }

    static int other(int master) {
        return 3 - master;
    }
}
