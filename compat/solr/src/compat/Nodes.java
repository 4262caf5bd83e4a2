package compat;

import java.io.IOException;
import java.net.ServerSocket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.TimeUnit;

/** Solr's nodes, each a process with a folder of its own: node N of N = 1, 2, … They end with this process. */
final class Nodes {
    /** Below which their state lies. */
    static final String ROOT = "/solr";
    /** Long enough for a busy machine, and what a dead node is noticed after. */
    private static final int SESSION_MS = 10_000;

    private final String zookeeper;
    private final Path folder = Path.of(System.getenv("WORK"), "nodes");
    private final Map<Integer, Integer> ports = new TreeMap<>();
    private final Map<Integer, Process> processes = new TreeMap<>();

    Nodes(String zookeeper, int count) throws IOException {
        this.zookeeper = zookeeper;
        List<ServerSocket> held = new ArrayList<>();
        for (int node = 1; node <= count; node++) {
            ServerSocket socket = new ServerSocket(0);
            held.add(socket);
            ports.put(node, socket.getLocalPort());
        }
        for (ServerSocket socket : held) {
            socket.close();
        }
        Runtime.getRuntime().addShutdownHook(new Thread(() -> processes.values().forEach(Process::destroyForcibly)));
    }

    void start(int node) throws IOException {
        Path home = folder.resolve(String.valueOf(node));
        Files.createDirectories(home);
        Files.writeString(home.resolve("solr.xml"), """
                <solr>
                  <solrcloud>
                    <str name="host">127.0.0.1</str>
                    <int name="hostPort">%d</int>
                    <str name="hostContext">solr</str>
                    <int name="zkClientTimeout">%d</int>
                  </solrcloud>
                </solr>
                """.formatted(ports.get(node), SESSION_MS));
        List<String> command = List.of("java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC",
                "-Dlog4j.configurationFile=" + System.getenv("NODE_LOGGING"), "-DzkHost=" + zookeeper + ROOT,
                "-cp", System.getenv("NODE_CLASSES"), "compat.Node", home.toString(), String.valueOf(ports.get(node)));
        processes.put(node, new ProcessBuilder(command).redirectErrorStream(true)
                .redirectOutput(ProcessBuilder.Redirect.appendTo(home.resolve("log").toFile())).start());
    }

    /** SIGKILL: its session ends by its timeout. */
    void kill(int node) throws InterruptedException {
        processes.get(node).destroyForcibly().waitFor();
    }

    /** SIGTERM: it gives up its leaderships, closes its session and ends. */
    void stop(int node) throws InterruptedException {
        Process process = processes.get(node);
        process.destroy();
        Checks.that(process.waitFor(100, TimeUnit.SECONDS), "node " + node + " does not end at SIGTERM");
    }

    /** For Solr's clients. */
    String address(int node) {
        return "http://127.0.0.1:" + ports.get(node) + "/solr";
    }

    /** What it calls itself in its znodes. */
    String name(int node) {
        return "127.0.0.1:" + ports.get(node) + "_solr";
    }

    /** The node that calls itself so. */
    int at(String name) {
        return ports.keySet().stream().filter(node -> name(node).equals(name)).findFirst().orElseThrow();
    }

    static int other(int node) {
        return 3 - node;
    }
}
