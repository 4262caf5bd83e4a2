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
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import org.apache.flink.configuration.Configuration;

/** Flink's job managers and task managers, each a process. They end with this process. */
final class Cluster {
    /** Below which their state lies. */
    static final String ROOT = "/flink/compat";

    private final Configuration settings = new Configuration();
    private final Path folder = Path.of(System.getenv("WORK"), "processes");
    /** Of each job manager: where programs ask it. */
    private final Map<Integer, Integer> restPorts = new TreeMap<>();
    private final Map<String, Process> processes = new ConcurrentHashMap<>();

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
        List<ServerSocket> held = new ArrayList<>();
        for (int manager = 1; manager <= count; manager++) {
            ServerSocket socket = new ServerSocket(0);
            held.add(socket);
            restPorts.put(manager, socket.getLocalPort());
        }
        for (ServerSocket socket : held) {
            socket.close();
        }
        Runtime.getRuntime().addShutdownHook(new Thread(() -> processes.values().forEach(Process::destroyForcibly)));
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
        List<String> command = new ArrayList<>(List.of("java", "-Xmx384m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC",
                "-Djava.io.tmpdir=" + folder.resolve("temporary"), "-Dlog4j.configuration=file:" + System.getenv("PROCESS_LOGGING")));
        command.addAll(List.of(System.getenv("PROCESS_OPTIONS").split(" ")));
        command.addAll(List.of("-cp", System.getenv("PROCESS_CLASSES"), mainClass, "--configDir", folder.resolve("settings").toString()));
        settings.toMap().forEach((key, value) -> command.add("-D" + key + "=" + value));
        more.forEach((key, value) -> command.add("-D" + key + "=" + value));
        File log = folder.resolve(name + ".log").toFile();
        processes.put(name, new ProcessBuilder(command).redirectErrorStream(true).redirectOutput(ProcessBuilder.Redirect.appendTo(log)).start());
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
