package compat;

import org.apache.flink.api.common.functions.MapFunction;

/** Passes on a thousand numbers a second at most. */
public final class Slowly implements MapFunction<Long, Long> {
    private static final long serialVersionUID = 1;

    @Override
    public Long map(Long number) throws InterruptedException {
        Thread.sleep(1);
        return number;
    }
}
