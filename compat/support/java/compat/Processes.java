package compat;

import java.io.File;
import java.io.IOException;
import java.net.ServerSocket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;

/**
 * Java programs that a suite starts and torments, each a process with a name, and a log of that name in a folder. They and
 * their children end with this process.
 */
public final class Processes {
    /** Longest time from SIGTERM to the end. Far above what any needs. */
    private static final int LIMIT_SECONDS = 100;
    /** A small machine runs many of them, none for long. */
    private static final List<String> JAVA = List.of("java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC");

    private final Path folder;
    private final Map<String, Process> processes = new ConcurrentHashMap<>();

    public Processes(Path folder) throws IOException {
        this.folder = folder;
        Files.createDirectories(folder.resolve("temporary"));
        Runtime.getRuntime().addShutdownHook(new Thread(() -> processes.values().forEach(process -> {
            process.descendants().forEach(ProcessHandle::destroyForcibly);
            process.destroyForcibly();
        })));
    }

    /** Free ports, each once. */
    public static List<Integer> freePorts(int count) throws IOException {
        List<Integer> ports = new ArrayList<>();
        List<ServerSocket> held = new ArrayList<>();
        for (int number = 0; number < count; number++) {
            ServerSocket socket = new ServerSocket(0);
            held.add(socket);
            ports.add(socket.getLocalPort());
        }
        for (ServerSocket socket : held) {
            socket.close();
        }
        return ports;
    }

    /** Starts a program; all that it prints goes to its log. */
    public void start(String name, List<String> arguments) throws IOException {
        processes.put(name, java(arguments).redirectErrorStream(true).redirectOutput(log(name)).start());
    }

    /** Starts one that is spoken to by its input and output; its log has what it prints as errors. */
    public void startSpeaker(String name, List<String> arguments) throws IOException {
        processes.put(name, java(arguments).redirectError(log(name)).start());
    }

    private ProcessBuilder java(List<String> arguments) {
        List<String> command = new ArrayList<>(JAVA);
        command.add("-Djava.io.tmpdir=" + folder.resolve("temporary"));
        command.addAll(arguments);
        return new ProcessBuilder(command);
    }

    private ProcessBuilder.Redirect log(String name) {
        File log = folder.resolve(name + ".log").toFile();
        return ProcessBuilder.Redirect.appendTo(log);
    }

    /** SIGKILL. */
    public void kill(String name) throws InterruptedException {
        processes.get(name).destroyForcibly().waitFor();
    }

    /** SIGTERM, and it has ended. */
    public void stop(String name) throws InterruptedException {
        Process process = processes.get(name);
        process.destroy();
        Checks.that(process.waitFor(LIMIT_SECONDS, TimeUnit.SECONDS), name + " does not end at SIGTERM");
    }

    public Process of(String name) {
        return processes.get(name);
    }
}
