package compat;

import java.util.Objects;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/**
 * Runs named checks one after another and prints the lines that compat/run counts: ok, FAIL or skip.
 *
 * A check that hangs fails after {@link #LIMIT_SECONDS}; the next one goes on in another thread.
 */
public final class Checks {
    /** Longest time of one check. Far above what any needs, so that a busy machine does not fail it. */
    private static final int LIMIT_SECONDS = 120;

    private final ExecutorService threads = Executors.newCachedThreadPool(body -> {
        Thread thread = new Thread(body, "check");
        thread.setDaemon(true);
        return thread;
    });
    private final String only = System.getenv().getOrDefault("ONLY", "");
    private int failed;

    /** What a check does; anything thrown fails it. */
    public interface Body {
        void run() throws Exception;
    }

    /** Runs one check; ONLY=text in the environment leaves out those whose name lacks the text. */
    public void check(String name, Body body) {
        if (!name.contains(only)) {
            return;
        }
        long start = System.nanoTime();
        Future<?> result = threads.submit(() -> {
            body.run();
            return null;
        });
        try {
            result.get(LIMIT_SECONDS, TimeUnit.SECONDS);
            System.out.println("ok " + name + " (" + (System.nanoTime() - start) / 1_000_000 + " ms)");
        } catch (TimeoutException | InterruptedException problem) {
            fail(name, new AssertionError("not done within " + LIMIT_SECONDS + " s"));
            result.cancel(true);
        } catch (ExecutionException problem) {
            fail(name, problem.getCause());
        }
        System.out.flush();
    }

    private void fail(String name, Throwable problem) {
        failed++;
        System.out.println("FAIL " + name + ": " + String.valueOf(problem).replace('\n', ' '));
        problem.printStackTrace();
    }

    /** Ends the process: 0 when every check passed. */
    public void finish() {
        System.exit(failed == 0 ? 0 : 1);
    }

    public static void equal(Object expected, Object found) {
        if (!Objects.equals(expected, found)) {
            throw new AssertionError("expected " + expected + ", found " + found);
        }
    }

    public static void that(boolean condition, String what) {
        if (!condition) {
            throw new AssertionError(what);
        }
    }

    /** Returns the exception of this type that the body throws; fails when it throws none, or another. */
    public static <T extends Throwable> T fails(Class<T> type, Body body) {
        try {
            body.run();
        } catch (Throwable problem) {
            if (type.isInstance(problem)) {
                return type.cast(problem);
            }
            throw new AssertionError("expected " + type.getSimpleName() + ", found " + problem, problem);
        }
        throw new AssertionError("expected " + type.getSimpleName() + ", but nothing was thrown");
    }

    /** A question that is asked again until the answer is yes. */
    public interface Question {
        boolean ask() throws Exception;
    }

    /** Waits until the answer is yes, within a minute. */
    public static void eventually(String what, Question question) throws Exception {
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(60);
        while (!question.ask()) {
            if (System.nanoTime() > deadline) {
                throw new AssertionError("never true within 60 s: " + what);
            }
            Thread.sleep(20);
        }
    }
}
