package compat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.apache.flink.configuration.Configuration;

/** Flink's job managers and task managers, each a process. They end with this process. */
final class Cluster {
    /** Below which their state lies. */
    static final String ROOT = "/flink/compat";

    private final Configuration settings = new Configuration();
    private final Path folder = Path.of(System.getenv("WORK"), "processes");
    /** Of each job manager: where programs ask it. */
    private final Map<Integer, Integer> restPorts = new TreeMap<>();
    final Processes processes = new Processes(folder);

    Cluster(String zookeeper, int count) throws IOException {
        Files.createDirectories(folder.resolve("settings"));
        Files.writeString(folder.resolve("settings/config.yaml"), "");
        Map<String, String> all = Map.of(
                "high-availability.type", "zookeeper",
                "high-availability.zookeeper.quorum", zookeeper,
                "high-availability.cluster-id", "/compat",
                "high-availability.storageDir", folder.resolve("state").toUri().toString(),
                // A leader stays leader while its session may still be there: long enough for a busy machine, and what a dead
                // one is noticed after.
                "high-availability.zookeeper.client.session-timeout", "15 s",
                "high-availability.zookeeper.client.tolerate-suspended-connections", "true");
        all.forEach(settings::setString);
        List<Integer> free = Processes.freePorts(count);
        for (int manager = 1; manager <= count; manager++) {
            restPorts.put(manager, free.get(manager - 1));
        }
    }

    /** What a client must know to find the leader. */
    Configuration settings() {
        Configuration copy = new Configuration(settings);
        copy.setString("execution.target", "remote");
        return copy;
    }

    void startJobManager(int manager) throws IOException {
        int port = restPorts.get(manager);
        start("jobs-" + manager, "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint", Map.of(
                "jobmanager.rpc.address", "127.0.0.1",
                "rest.address", "127.0.0.1",
                "rest.bind-address", "127.0.0.1",
                "rest.bind-port", String.valueOf(port),
                "rest.port", String.valueOf(port)));
    }

    void startTaskManager(int manager) throws IOException {
        start("tasks-" + manager, "org.apache.flink.runtime.taskexecutor.TaskManagerRunner", Map.ofEntries(
                Map.entry("taskmanager.host", "127.0.0.1"),
                Map.entry("taskmanager.numberOfTaskSlots", "2"),
                // Flink's scripts would reckon these.
                Map.entry("taskmanager.cpu.cores", "1"),
                Map.entry("taskmanager.memory.framework.heap.size", "128m"),
                Map.entry("taskmanager.memory.framework.off-heap.size", "64m"),
                Map.entry("taskmanager.memory.task.heap.size", "128m"),
                Map.entry("taskmanager.memory.task.off-heap.size", "0"),
                Map.entry("taskmanager.memory.managed.size", "32m"),
                Map.entry("taskmanager.memory.network.min", "32m"),
                Map.entry("taskmanager.memory.network.max", "32m"),
                Map.entry("taskmanager.memory.jvm-metaspace.size", "128m"),
                Map.entry("taskmanager.memory.jvm-overhead.min", "64m"),
                Map.entry("taskmanager.memory.jvm-overhead.max", "64m")));
    }

    private void start(String name, String mainClass, Map<String, String> more) throws IOException {
        List<String> arguments = new ArrayList<>(List.of("-Xmx384m", "-Dlog4j.configuration=file:" + System.getenv("PROCESS_LOGGING")));
        arguments.addAll(List.of(System.getenv("PROCESS_OPTIONS").split(" ")));
        arguments.addAll(List.of("-cp", System.getenv("PROCESS_CLASSES"), mainClass, "--configDir", folder.resolve("settings").toString()));
        settings.toMap().forEach((key, value) -> arguments.add("-D" + key + "=" + value));
        more.forEach((key, value) -> arguments.add("-D" + key + "=" + value));
        processes.start(name, arguments);
    }

    /** The job manager that listens there. */
    int at(int restPort) {
        return restPorts.entrySet().stream().filter(one -> one.getValue() == restPort).findFirst().orElseThrow().getKey();
    }

    String address(int manager) {
        return "http://127.0.0.1:" + restPorts.get(manager);
    }

    static int other(int manager) {
        return 3 - manager;
    }
}
