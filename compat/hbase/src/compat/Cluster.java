package compat;

import java.io.File;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.hbase.HBaseConfiguration;

/** HBase's servers, each a process with a folder of its own. Their tables lie in a folder of this machine. They end with this process. */
final class Cluster {
    /** What a dead server is noticed after. */
    private static final int SESSION_MS = 10_000;
    private static final List<String> OPTIONS = List.of("-Xmx384m",
            "--add-opens=java.base/java.lang=ALL-UNNAMED", "--add-opens=java.base/java.lang.reflect=ALL-UNNAMED",
            "--add-opens=java.base/java.net=ALL-UNNAMED", "--add-opens=java.base/java.nio=ALL-UNNAMED",
            "--add-opens=java.base/java.util=ALL-UNNAMED", "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
            "--add-opens=java.base/jdk.internal.ref=ALL-UNNAMED", "--add-exports=java.base/jdk.internal.misc=ALL-UNNAMED");

    private final Path folder = Path.of(System.getenv("WORK"), "cluster");
    private final Map<String, String> settings = new TreeMap<>();
    private final Processes processes = new Processes(folder);
    private final Map<String, Integer> ports = new TreeMap<>();

    Cluster(String zookeeper) throws IOException {
        settings.put("hbase.cluster.distributed", "true");
        settings.put("hbase.rootdir", folder.resolve("tables").toUri().toString());
        settings.put("hbase.unsafe.stream.capability.enforce", "false");
        settings.put("hbase.wal.provider", "filesystem");
        settings.put("hbase.zookeeper.quorum", zookeeper);
        settings.put("zookeeper.session.timeout", String.valueOf(SESSION_MS));
        settings.put("hbase.client.registry.impl", "org.apache.hadoop.hbase.client.ZKConnectionRegistry");
        for (String kind : List.of("hbase.master", "hbase.regionserver")) {
            settings.put(kind + ".info.port", "-1");
            settings.put(kind + ".ipc.address", "127.0.0.1");
        }
        settings.put("hbase.master.hostname", "localhost");
        settings.put("hbase.unsafe.regionserver.hostname", "localhost");
    }

    /** For HBase's client. */
    Configuration configuration() {
        Configuration configuration = HBaseConfiguration.create();
        settings.forEach(configuration::set);
        return configuration;
    }

    void startMaster(String name) throws IOException {
        start(name, "hbase.master", "org.apache.hadoop.hbase.master.HMaster");
    }

    void startRegionServer(String name) throws IOException {
        start(name, "hbase.regionserver", "org.apache.hadoop.hbase.regionserver.HRegionServer");
    }

    /** SIGKILL: its session ends by its timeout. */
    void kill(String name) throws InterruptedException {
        processes.kill(name);
    }

    /** The server that has this name in HBase: host, port and the time of its start. */
    String at(String serverName) {
        int port = Integer.parseInt(serverName.split(",")[1]);
        return ports.entrySet().stream().filter(entry -> entry.getValue() == port).findAny().orElseThrow().getKey();
    }

    private int port(String name) throws IOException {
        if (!ports.containsKey(name)) {
            ports.put(name, Processes.freePorts(1).get(0));
        }
        return ports.get(name);
    }

    private void start(String name, String kind, String main) throws IOException {
        Path home = folder.resolve(name);
        Files.createDirectories(home);
        StringBuilder site = new StringBuilder("<configuration>\n");
        Map<String, String> own = new TreeMap<>(settings);
        own.put(kind + ".port", String.valueOf(port(name)));
        own.put("hbase.tmp.dir", home.resolve("tmp").toString());
        own.forEach((key, value) -> site.append("<property><name>").append(key).append("</name><value>").append(value)
                .append("</value></property>\n"));
        Files.writeString(home.resolve("hbase-site.xml"), site.append("</configuration>\n").toString());
        List<String> arguments = new ArrayList<>(OPTIONS);
        arguments.addAll(List.of("-cp", home + File.pathSeparator + System.getenv("CLUSTER_JARS"), main, "start"));
        processes.start(name, arguments);
    }
}
