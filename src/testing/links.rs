//! Threads that have messages for another server, in any order: whoever has one sends what waits if nobody else does, and the
//! link's task sends what is left. What is looked for is a message that nobody sends, and one that comes out of order.

use super::interleaving::{SEED, explore, is_found, point, set_explored, wait};
use super::mutant::Mutant;
use crate::net::peers::SimulatedLink;
use bytes::{Bytes, BytesMut};
use shuttle::rand::{Rng as _, RngCore as _, thread_rng};
use shuttle::{future, thread};
use std::sync::Arc;

const ORDERS: usize = 20_000;
const SENDERS: u8 = 3;
const MESSAGES: u8 = 6;

/// Some put messages in, one or several at a time, and have them sent. All arrive, those of each sender in their order.
fn send_in_some_order() {
    set_explored(true);
    let is_plain = thread_rng().gen_bool(0.8);
    let most = usize::from(SENDERS) * usize::from(MESSAGES) + 1;
    let link = Arc::new(SimulatedLink::up(thread_rng().next_u64(), is_plain, most));
    let of_task = link.clone();
    let task = thread::spawn(move || future::block_on(of_task.talk()));
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let link = link.clone();
            thread::spawn(move || {
                for number in 0..MESSAGES {
                    let body = Bytes::from(vec![sender, number]);
                    link.put(body).expect("there is room");
                    point();
                    if number + 1 == MESSAGES || thread_rng().gen_bool(0.6) {
                        link.flush();
                    }
                }
            })
        })
        .collect();
    let mut arrived = BytesMut::new();
    let mut next = [0; SENDERS as usize];
    while next != [MESSAGES; SENDERS as usize] {
        for body in link.received(&mut arrived) {
            let expected = &mut next[usize::from(body[0])];
            assert_eq!(body[1], *expected, "a message out of order");
            *expected += 1;
        }
        wait();
    }
    senders
        .into_iter()
        .for_each(|sender| sender.join().expect("it has sent all"));
    link.end();
    task.join().expect("the task ends");
    set_explored(false);
}

#[test]
fn every_message_is_sent_in_its_order() {
    explore(send_in_some_order, SEED, ORDERS);
}

#[test]
fn found_outbox_looks_once() {
    is_found(Mutant::OutboxLooksOnce, send_in_some_order, ORDERS, "max_steps");
}

#[test]
fn found_rest_overtaken() {
    is_found(Mutant::RestOvertaken, send_in_some_order, ORDERS, "out of order");
}
