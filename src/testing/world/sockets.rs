//! Connections of clients: bytes stay in order, and an end is told later, if at all.

use super::{Happening, Wire, World};
use crate::net::{Conversation as _, Flow, Output, PromptWriter, SimulatedSocket};
use crate::server::simulated::SimulatedMember;
use crate::testing::client::{Client, Wish};
use crate::testing::workload::Worker;
use bytes::{Buf as _, Bytes, BytesMut};
use std::net::SocketAddr;
use std::sync::Arc;

impl World {
    pub(super) fn add_client(&mut self, worker: Worker, timeout_ms: u64, pinned: Option<usize>) -> usize {
        let client = self.clients.len();
        self.clients.push(Client::new(worker, timeout_ms));
        self.pinned.push(pinned);
        self.wire_of.push(None);
        let wait_us = self.lots.between(0, 20_000);
        self.after(wait_us, Happening::Act(client));
        client
    }

    pub(super) fn fulfil(&mut self, client: usize, wishes: Vec<Wish>) {
        for wish in wishes {
            match wish {
                Wish::Connect => self.connect(client),
                Wish::Send(bytes) => {
                    if let Some(wire) = self.wire_of[client] {
                        self.send_to_server(wire, bytes);
                    }
                }
                Wish::Hangup => {
                    if let Some(wire) = self.wire_of[client].take() {
                        // Sometimes the server does not learn of it for a while.
                        let late_us = if self.lots.below(4) == 0 { 2_000_000 } else { 1_000 };
                        let wait_us = self.lots.between(100, late_us);
                        let at_us = self.wires.get(&wire).map_or(0, |wire| wire.at_server_us);
                        self.at(
                            at_us.max(self.recorder.now_us + wait_us),
                            Happening::HangupAtServer(wire),
                        );
                    }
                }
            }
        }
    }

    pub(super) fn connect(&mut self, client: usize) {
        let member = self.pinned[client].unwrap_or_else(|| self.lots.below(self.members.len()));
        // The kernel takes connections for a process that stands still.
        if self.members[member].running.is_none() {
            return;
        }
        let id = self.next_wire;
        self.next_wire += 1;
        let address = SocketAddr::from(([10, 0, 0, 1], u16::try_from(id % 60_000).unwrap_or(0)));
        // TLS has none.
        let is_plain = self.lots.below(4) != 0;
        let prompt = is_plain.then(|| Arc::new(SimulatedSocket::new(self.scenario.seed ^ id)));
        let writer = prompt.clone().map(PromptWriter::simulated);
        let server = self.member(member).admit(address, writer);
        let now_us = self.recorder.now_us;
        self.wires.insert(
            id,
            Wire {
                client,
                member,
                life: self.members[member].life,
                server,
                socket: BytesMut::new(),
                received: BytesMut::new(),
                output: Output::new(),
                prompt,
                flow: Flow::Read,
                at_server_us: now_us,
                at_client_us: now_us,
            },
        );
        self.wire_of[client] = Some(id);
        let bytes = self.clients[client].connected(id, now_us);
        self.send_to_server(id, bytes);
    }

    pub(super) fn send_to_server(&mut self, id: u64, bytes: Bytes) {
        let delay_us = self.lots.between(50, 400);
        let now_us = self.recorder.now_us;
        let Some(wire) = self.wires.get_mut(&id) else { return };
        wire.at_server_us = wire.at_server_us.max(now_us + delay_us);
        let at_us = wire.at_server_us;
        self.recorder.bytes(&bytes);
        self.at(at_us, Happening::ToServer { wire: id, bytes });
    }

    pub(super) fn at_server(&mut self, id: u64, bytes: &Bytes) {
        let Some(wire) = self.wires.get_mut(&id) else { return };
        wire.socket.extend_from_slice(bytes);
        let (member, life) = (wire.member, wire.life);
        let is_forgotten = wire.server.as_deref().is_some_and(SimulatedMember::is_forgotten);
        if self.is_alive(member, life) {
            assert!(
                !is_forgotten,
                "what is queued for a client waits for the client's next request: nobody woke the task"
            );
            self.advance(id);
            self.settle(member);
        }
    }

    /// What the task of a socket does.
    pub(super) fn advance(&mut self, id: u64) {
        let Some(wire) = self.wires.get(&id) else { return };
        let (member, life) = (wire.member, wire.life);
        if !self.is_alive(member, life) {
            return;
        }
        self.member(member);
        self.sent_promptly(id);
        let mut said = Vec::new();
        let Some(wire) = self.wires.get_mut(&id) else { return };
        let Some(server) = wire.server.clone() else { return };
        let is_over = loop {
            if wire.flow == Flow::Read && !wire.socket.is_empty() {
                wire.received.unsplit(wire.socket.split());
            }
            wire.flow = server.advance(&mut wire.received, &mut wire.output);
            if wire.flow == Flow::Abort {
                break true;
            }
            if !wire.output.is_empty() {
                said.push(wire.output.copy_to_bytes(wire.output.len()));
                continue;
            }
            if wire.flow == Flow::Close {
                break true;
            }
            if wire.flow == Flow::Yield {
                continue;
            }
            if wire.flow == Flow::Pause || wire.socket.is_empty() {
                break false;
            }
        };
        if is_over {
            wire.server = None;
            SimulatedMember::ended(&server);
        }
        for bytes in said {
            self.send_to_client(id, bytes);
        }
        if is_over {
            let at_us = self.client_time(id, 100);
            self.at(at_us, Happening::HangupAtClient(id));
        }
    }

    /// What others than its task have sent through a socket is on its way.
    pub(super) fn sent_promptly(&mut self, id: u64) {
        let prompt = self.wires.get(&id).and_then(|wire| wire.prompt.as_ref());
        let bytes = prompt.map(|prompt| prompt.sent()).unwrap_or_default();
        if !bytes.is_empty() {
            self.prompt_bytes += bytes.len() as u64;
            self.send_to_client(id, bytes);
        }
    }

    fn send_to_client(&mut self, id: u64, bytes: Bytes) {
        let delay_us = self.lots.between(50, 400);
        let at_us = self.client_time(id, delay_us);
        self.recorder.bytes(&bytes);
        self.at(at_us, Happening::ToClient { wire: id, bytes });
    }

    pub(super) fn client_time(&mut self, id: u64, delay_us: u64) -> u64 {
        let now_us = self.recorder.now_us;
        self.wires.get_mut(&id).map_or(now_us, |wire| {
            wire.at_client_us = wire.at_client_us.max(now_us + delay_us);
            wire.at_client_us
        })
    }

    pub(super) fn at_client(&mut self, id: u64, bytes: &Bytes) {
        let Some(wire) = self.wires.get(&id) else { return };
        let (client, server) = (wire.client, wire.member as u64 + 1);
        if self.wire_of[client] != Some(id) {
            return;
        }
        let now_us = self.recorder.now_us;
        let wishes = self.clients[client].received(bytes, server, now_us, &mut self.recorder);
        self.fulfil(client, wishes);
    }

    pub(super) fn hung_up(&mut self, id: u64) {
        let Some(wire) = self.wires.get(&id) else { return };
        let client = wire.client;
        if wire.server.is_none() || !self.is_alive(wire.member, wire.life) {
            self.wires.remove(&id);
        } else {
            self.after(500, Happening::HangupAtServer(id));
        }
        if self.wire_of[client] == Some(id) {
            self.wire_of[client] = None;
            self.clients[client].hung_up(&mut self.recorder);
        }
    }
}
