package compat;

import static compat.Checks.equal;
import static compat.Checks.eventually;

import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.ZooKeeper;

/**
 * Spark's own cluster manager with two masters, of which the ensemble elects one, and keeps what it knows: what becomes of a
 * running application when masters and the ensemble's servers end. One check builds on the others.
 */
public final class Spark {
    /** Their sum is known to every pupil. */
    private static final int NUMBERS = 100;
    private static final String SUM = "5050";

    private final Cluster cluster;
    private final ZooKeeper zookeeper;

    private Spark(String ensemble) throws Exception {
        cluster = new Cluster(ensemble, 2);
        zookeeper = new ZooKeeper(ensemble, 60_000, event -> { });
    }

    public static void main(String[] arguments) throws Exception {
        Checks checks = new Checks();
        Spark spark = new Spark(Ensemble.all());
        checks.check("one master leads, the other waits; a worker registers", spark::mastersAreElected);
        checks.check("an application runs, worker and application are written down", spark::applicationRuns);
        checks.check("the master that leads is killed: the other knows worker and application, work goes on", spark::masterIsKilled);
        checks.check("the ensemble's leader is killed: a master leads, work goes on", spark::leaderIsKilled);
        checks.check("the whole ensemble is restarted: a master leads, work goes on", spark::ensembleIsRestarted);
        checks.check("an application that has ended is forgotten, and another one runs", spark::applicationEnds);
        checks.finish();
    }

    private void mastersAreElected() throws Exception {
        cluster.startMaster(1);
        eventually("it leads", () -> cluster.leader() == 1);
        cluster.startMaster(2);
        eventually("the other waits", () -> cluster.page(2).path("status").asText().equals("STANDBY"));
        cluster.startWorker(1);
        eventually("the worker is there", () -> cluster.page(1).path("aliveworkers").asInt() == 1);
        equal(1, cluster.leader());
    }

    private void applicationRuns() throws Exception {
        cluster.startApplication("pupil");
        equal(SUM, cluster.ask("pupil", NUMBERS));
        equal(1, cluster.page(1).path("activeapps").size());
        equal(Set.of("app", "worker"), writtenDown());
    }

    private void masterIsKilled() throws Exception {
        int killed = cluster.leader();
        cluster.processes.kill("master-" + killed);
        // Who works does not need a master.
        equal(SUM, cluster.ask("pupil", NUMBERS));
        eventually("the other leads, and knows both", () -> leadsAndKnowsBoth(Cluster.other(killed)));
        equal(SUM, cluster.ask("pupil", NUMBERS));
        cluster.startMaster(killed);
        eventually("the first waits", () -> cluster.page(killed).path("status").asText().equals("STANDBY"));
    }

    private void leaderIsKilled() throws Exception {
        int leader = Ensemble.leader();
        Ensemble.kill(leader);
        equal(SUM, cluster.ask("pupil", NUMBERS));
        Ensemble.start(leader);
        awaitLeaderAfterTrouble();
    }

    private void ensembleIsRestarted() throws Exception {
        for (int member = 1; member <= 3; member++) {
            Ensemble.stop(member);
        }
        equal(SUM, cluster.ask("pupil", NUMBERS));
        Ensemble.start(1, 2, 3);
        awaitLeaderAfterTrouble();
    }

    /** A master that loses its connection while it leads ends by itself: whoever runs Spark starts it again. */
    private void awaitLeaderAfterTrouble() throws Exception {
        eventually("a master leads, and knows both", () -> {
            for (int master : List.of(1, 2)) {
                if (!cluster.processes.of("master-" + master).isAlive()) {
                    System.out.println("master " + master + " has ended, and is started again");
                    cluster.startMaster(master);
                }
            }
            return leadsAndKnowsBoth(cluster.leader());
        });
        equal(SUM, cluster.ask("pupil", NUMBERS));
    }

    private boolean leadsAndKnowsBoth(int master) {
        return master != 0 && cluster.leader() == master && cluster.page(master).path("aliveworkers").asInt() == 1
                && cluster.page(master).path("activeapps").size() == 1;
    }

    private void applicationEnds() throws Exception {
        cluster.finish("pupil");
        eventually("it is forgotten", () -> writtenDown().equals(Set.of("worker")));
        cluster.startApplication("other");
        equal(SUM, cluster.ask("other", NUMBERS));
        cluster.finish("other");
        cluster.processes.stop("worker-1");
        for (int master : List.of(1, 2)) {
            cluster.processes.stop("master-" + master);
        }
    }

    /** The kinds of things that the master has written down. */
    private Set<String> writtenDown() throws Exception {
        Set<String> kinds = new TreeSet<>();
        try {
            for (String name : zookeeper.getChildren(Cluster.ROOT + "/master_status", false)) {
                kinds.add(name.substring(0, name.indexOf('_')));
            }
        } catch (KeeperException.NoNodeException none) {
            // Nothing yet.
        }
        return kinds;
    }
}
