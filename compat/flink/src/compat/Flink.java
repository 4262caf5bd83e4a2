package compat;

import static compat.Checks.equal;
import static compat.Checks.eventually;
import static compat.Checks.that;

import java.io.IOException;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.TimeUnit;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.flink.api.common.JobStatus;
import org.apache.flink.core.execution.JobClient;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.ZooKeeper;

/**
 * A Flink cluster of two job managers, of which the ensemble elects one and keeps what a job goes on from: what becomes of a
 * running job when job managers and the ensemble's servers end. One check builds on the others.
 */
public final class Flink {
    private static final int CHECKPOINT_MS = 300;

    private final Cluster cluster;
    private final ZooKeeper zookeeper;
    private JobClient job;
    /** The last checkpoint that was seen. */
    private long seen;

    private Flink(String ensemble) throws Exception {
        cluster = new Cluster(ensemble, 2);
        zookeeper = new ZooKeeper(ensemble, 60_000, event -> { });
    }

    public static void main(String[] arguments) throws Exception {
        Checks checks = new Checks();
        Flink flink = new Flink(Ensemble.all());
        checks.check("one job manager leads", flink::managersAreElected);
        checks.check("a job runs, its checkpoints are written down", flink::jobRuns);
        checks.check("the job manager that leads is killed: the other goes on from a checkpoint", flink::managerIsKilled);
        checks.check("the ensemble's leader is killed: no job manager loses its session, the job goes on", flink::leaderIsKilled);
        checks.check("the whole ensemble is restarted: no job manager loses its session, the job goes on", flink::ensembleIsRestarted);
        checks.check("the job is cancelled: nothing of it is left", flink::jobIsCancelled);
        checks.finish();
    }

    private void managersAreElected() throws Exception {
        cluster.startJobManager(1);
        eventually("it leads", () -> leader() == 1);
        cluster.startJobManager(2);
        cluster.startTaskManager(1);
        eventually("the other waits", () -> children("/leader/latch").size() == 2);
        eventually("the task manager is there", () -> ask("/taskmanagers").contains("\"slotsNumber\":2"));
        equal(1, leader());
    }

    private void jobRuns() throws Exception {
        StreamExecutionEnvironment environment = new StreamExecutionEnvironment(cluster.settings());
        environment.setParallelism(1);
        environment.enableCheckpointing(CHECKPOINT_MS);
        environment.fromSequence(0, Long.MAX_VALUE - 1).map(new Slowly()).sinkTo(new DiscardingSink<>());
        job = environment.executeAsync("counts");
        awaitCheckpoints();
        equal(List.of(job.getJobID().toString()), children("/jobgraphs"));
        that(!children("/jobs/" + job.getJobID() + "/checkpoints").isEmpty(), "a checkpoint is written down");
    }

    private void managerIsKilled() throws Exception {
        int killed = leader();
        cluster.processes.kill("jobs-" + killed);
        eventually("the other leads", () -> leader() == Cluster.other(killed));
        awaitCheckpoints();
        eventually("it has gone on from a checkpoint", () -> ask("/jobs/" + job.getJobID() + "/checkpoints").contains("\"restored\":1"));
        cluster.startJobManager(killed);
        eventually("the first waits", () -> children("/leader/latch").size() == 2);
    }

    private void leaderIsKilled() throws Exception {
        Set<Long> births = births();
        int leader = Ensemble.leader();
        Ensemble.kill(leader);
        awaitCheckpoints();
        Ensemble.start(leader);
        awaitCheckpoints();
        equal(births, births());
    }

    private void ensembleIsRestarted() throws Exception {
        Set<Long> births = births();
        for (int member = 1; member <= 3; member++) {
            Ensemble.stop(member);
        }
        Ensemble.start(1, 2, 3);
        awaitCheckpoints();
        equal(births, births());
    }

    private void jobIsCancelled() throws Exception {
        job.cancel().get(60, TimeUnit.SECONDS);
        eventually("it has ended", () -> job.getJobStatus().get(60, TimeUnit.SECONDS) == JobStatus.CANCELED);
        eventually("nothing of it is left", () -> children("/jobgraphs").isEmpty() && children("/jobs").isEmpty());
        int leader = leader();
        cluster.processes.stop("jobs-" + Cluster.other(leader));
        equal(1, children("/leader/latch").size());
        cluster.processes.stop("jobs-" + leader);
        equal(List.of(), children("/leader/latch"));
        cluster.processes.stop("tasks-1");
    }

    /** Several more checkpoints are completed than have been seen; their numbers never go back. */
    private void awaitCheckpoints() throws Exception {
        long wanted = seen + 3;
        eventually("checkpoint " + wanted + " is completed", () -> {
            Matcher latest = Pattern.compile("\"latest\":\\{\"completed\":\\{[^{]*?\"id\":(\\d+)").matcher(ask("/jobs/" + job.getJobID() + "/checkpoints"));
            if (!latest.find()) {
                return false;
            }
            long number = Long.parseLong(latest.group(1));
            that(number >= seen, "checkpoint " + number + " comes after " + seen);
            seen = number;
            return seen >= wanted;
        });
    }

    /** What the job manager that leads tells programs; nothing while none does. */
    private String ask(String path) throws Exception {
        int leader = leader();
        if (leader == 0) {
            return "";
        }
        try (var answer = URI.create(cluster.address(leader) + path).toURL().openStream()) {
            return new String(answer.readAllBytes(), StandardCharsets.UTF_8);
        } catch (IOException starting) {
            return "";
        }
    }

    /** The job manager that leads; 0 while none does. */
    private int leader() throws Exception {
        try {
            byte[] data = zookeeper.getData(Cluster.ROOT + "/leader/rest_server/connection_info", false, null);
            Matcher address = Pattern.compile("http://127\\.0\\.0\\.1:(\\d+)").matcher(new String(data, StandardCharsets.ISO_8859_1));
            return address.find() ? cluster.at(Integer.parseInt(address.group(1))) : 0;
        } catch (KeeperException.NoNodeException none) {
            return 0;
        }
    }

    private List<String> children(String below) throws Exception {
        try {
            return zookeeper.getChildren(Cluster.ROOT + below, false);
        } catch (KeeperException.NoNodeException none) {
            return List.of();
        }
    }

    /** When the znodes of those who stand for election were made: others, if one has had to do so anew. */
    private Set<Long> births() throws Exception {
        Set<Long> births = new TreeSet<>();
        for (String candidate : children("/leader/latch")) {
            births.add(zookeeper.exists(Cluster.ROOT + "/leader/latch/" + candidate, false).getCzxid());
        }
        equal(2, births.size());
        births.add(zookeeper.exists(Cluster.ROOT + "/leader/rest_server/connection_info", false).getCzxid());
        return births;
    }
}
