package compat;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;

/** The ensemble in the folder that ENSEMBLE names, by compat/support/ensemble. Members are numbered from 1. */
public final class Ensemble {
    private static final String TOOL = System.getenv("REPOSITORY") + "/compat/support/ensemble";
    private static final String FOLDER = System.getenv("ENSEMBLE");

    /** Apache's server: it closes every connection when its leader is gone, which ours does not. */
    public static final boolean IS_APACHE = "apache".equals(System.getenv("AGAINST"));

    private Ensemble() {}

    /** All client addresses, as a connection string. */
    public static String all() throws IOException, InterruptedException {
        return tell("addresses");
    }

    /** One member's client address. */
    public static String address(int member) throws IOException, InterruptedException {
        return all().split(",")[member - 1];
    }

    public static int leader() throws IOException, InterruptedException {
        return Integer.parseInt(tell("leader"));
    }

    /** The members but one. */
    public static List<Integer> others(int member) {
        List<Integer> others = new ArrayList<>(List.of(1, 2, 3));
        others.remove(Integer.valueOf(member));
        return others;
    }

    /** SIGKILL. */
    public static void kill(int member) throws IOException, InterruptedException {
        tell("kill", String.valueOf(member));
    }

    /** SIGTERM, and the process has ended. */
    public static void stop(int member) throws IOException, InterruptedException {
        tell("stop", String.valueOf(member));
    }

    /** Starts members that were killed or stopped, and waits until all of them serve. */
    public static void start(int... members) throws IOException, InterruptedException {
        for (int member : members) {
            tell("start", String.valueOf(member));
        }
        tell("await");
    }

    private static String tell(String... words) throws IOException, InterruptedException {
        List<String> command = new ArrayList<>(List.of(TOOL, FOLDER));
        command.addAll(List.of(words));
        // A server that is started inherits nothing of ours, or its output would keep ours open.
        Process process = new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.INHERIT).start();
        String answer = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8).trim();
        Checks.equal(0, process.waitFor());
        return answer;
    }
}
