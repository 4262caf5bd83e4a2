package compat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.File;
import java.io.IOException;
import java.io.OutputStream;
import java.net.ServerSocket;
import java.net.URI;
import java.net.URL;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
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
    private final Map<String, Process> processes = new ConcurrentHashMap<>();
    private final ObjectMapper json = new ObjectMapper();

    Cluster(String zookeeper, int count) throws IOException {
        this.zookeeper = zookeeper;
        Files.createDirectories(folder.resolve("temporary"));
        List<ServerSocket> held = new ArrayList<>();
        for (int master = 1; master <= count; master++) {
            int[] ports = new int[2];
            for (int port = 0; port < ports.length; port++) {
                ServerSocket socket = new ServerSocket(0);
                held.add(socket);
                ports[port] = socket.getLocalPort();
            }
            masters.put(master, ports);
        }
        for (ServerSocket socket : held) {
            socket.close();
        }
        Runtime.getRuntime().addShutdownHook(new Thread(() -> processes.values().forEach(Cluster::end)));
    }

    private static void end(Process process) {
        // A worker's executors, too.
        process.descendants().forEach(ProcessHandle::destroyForcibly);
        process.destroyForcibly();
    }

    /** All masters, for workers and applications. */
    String addresses() {
        List<String> addresses = new ArrayList<>();
        masters.values().forEach(ports -> addresses.add("127.0.0.1:" + ports[0]));
        return "spark://" + String.join(",", addresses);
    }

    void startMaster(int master) throws IOException {
        int[] ports = masters.get(master);
        start("master-" + master, "org.apache.spark.deploy.master.Master",
                "--host", "127.0.0.1", "--port", String.valueOf(ports[0]), "--webui-port", String.valueOf(ports[1]));
    }

    void startWorker(int worker) throws IOException {
        start("worker-" + worker, "org.apache.spark.deploy.worker.Worker", "--host", "127.0.0.1", "--cores", "4", "--memory", "4g",
                "--work-dir", folder.resolve("work-" + worker).toString(), "--webui-port", "0", addresses());
    }

    void startApplication(String name) throws IOException {
        start(name, "compat.Application", name, addresses());
    }

    private void start(String name, String... words) throws IOException {
        List<String> command = new ArrayList<>(List.of("java", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC",
                "-Djava.io.tmpdir=" + folder.resolve("temporary"), "-Dlog4j.configurationFile=" + System.getenv("PROCESS_LOGGING"),
                "-Dspark.deploy.recoveryMode=ZOOKEEPER",
                "-Dspark.deploy.zookeeper.url=" + zookeeper, "-Dspark.deploy.zookeeper.dir=" + ROOT));
        command.addAll(List.of(JavaModuleOptions.defaultModuleOptions().split(" ")));
        command.addAll(List.of("-cp", System.getenv("PROCESS_CLASSES")));
        command.addAll(List.of(words));
        File log = folder.resolve(name + ".log").toFile();
        processes.put(name, new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.appendTo(log)).start());
    }

    /** SIGKILL: its session ends by its timeout. */
    void kill(String name) throws InterruptedException {
        processes.get(name).destroyForcibly().waitFor();
    }

    /** SIGTERM, and the process has ended. */
    void stop(String name) throws InterruptedException {
        Process process = processes.get(name);
        process.destroy();
        Checks.that(process.waitFor(100, TimeUnit.SECONDS), name + " does not end at SIGTERM");
    }

    boolean runs(String name) {
        return processes.get(name).isAlive();
    }

    /** What an application makes of a number. */
    String ask(String application, int number) throws IOException {
        Process process = processes.get(application);
        OutputStream input = process.getOutputStream();
        input.write((number + "\n").getBytes(StandardCharsets.UTF_8));
        input.flush();
        BufferedReader output = process.inputReader();
        return output.readLine();
    }

    /** The end of its input ends an application. */
    void finish(String application) throws Exception {
        Process process = processes.get(application);
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
