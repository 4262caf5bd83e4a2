package compat;

import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.apache.zookeeper.WatchedEvent;
import org.apache.zookeeper.Watcher;

/** A watcher that keeps its node events in order, and the connection's last state apart from them. */
public final class Events implements Watcher {
    private final BlockingQueue<WatchedEvent> events = new LinkedBlockingQueue<>();
    private volatile Event.KeeperState state = Event.KeeperState.Disconnected;

    @Override
    public void process(WatchedEvent event) {
        state = event.getState();
        if (event.getType() != Event.EventType.None) {
            events.add(event);
        }
    }

    /** Waits for the next event, which must be this one. */
    public void expect(Event.EventType type, String path) throws InterruptedException {
        WatchedEvent event = events.poll(60, TimeUnit.SECONDS);
        String found = event == null ? "no event within 60 s" : event.getType() + " " + event.getPath();
        Checks.equal(type + " " + path, found);
    }

    /** True when no event waits. Ask after a read of the same session: events come before the reply. */
    public boolean isEmpty() {
        return events.isEmpty();
    }

    public void expectNone() {
        WatchedEvent event = events.peek();
        Checks.that(event == null, "unexpected event " + event);
    }

    public Event.KeeperState state() {
        return state;
    }

    public void awaitState(Event.KeeperState wanted) throws Exception {
        Checks.eventually("connection is " + wanted, () -> state == wanted);
    }
}
