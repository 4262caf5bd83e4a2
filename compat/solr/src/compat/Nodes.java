package compat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/** Solr's nodes, each a process with a folder of its own: node N of N = 1, 2, … They end with this process. */
final class Nodes {
    /** Below which their state lies. */
    static final String ROOT = "/solr";
    /** Long enough for a busy machine, and what a dead node is noticed after. */
    private static final int SESSION_MS = 10_000;

    private final String zookeeper;
    private final Path folder = Path.of(System.getenv("WORK"), "nodes");
    private final Map<Integer, Integer> ports = new TreeMap<>();
    private final Processes processes = new Processes(folder);

    Nodes(String zookeeper, int count) throws IOException {
        this.zookeeper = zookeeper;
        List<Integer> free = Processes.freePorts(count);
        for (int node = 1; node <= count; node++) {
            ports.put(node, free.get(node - 1));
        }
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
        processes.start("node-" + node, List.of("-Xmx256m", "-Dlog4j.configurationFile=" + System.getenv("NODE_LOGGING"), "-DzkHost=" + zookeeper + ROOT,
                "-cp", System.getenv("NODE_CLASSES"), "compat.Node", home.toString(), String.valueOf(ports.get(node))));
    }

    /** SIGKILL: its session ends by its timeout. */
    void kill(int node) throws InterruptedException {
        processes.kill("node-" + node);
    }

    /** SIGTERM: it gives up its leaderships, closes its session and ends. */
    void stop(int node) throws InterruptedException {
        processes.stop("node-" + node);
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
