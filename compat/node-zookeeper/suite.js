// npm's zookeeper against the server named by ZK=host:port.
"use strict";

const assert = require("node:assert");
const ZooKeeper = require("zookeeper");
const { runChecks } = require("../support/checks.js");

let root = "";
let turn = 0;
const { constants } = ZooKeeper;

async function open() {
  const client = new ZooKeeper({ connect: process.env.ZK, timeout: 30000, debug_level: constants.ZOO_LOG_LEVEL_ERROR, host_order_deterministic: false });
  await new Promise((resolve, reject) => client.connect(client.config, (problem) => (problem ? reject(problem) : resolve())));
  return client;
}

async function deleteBelow(client, path) {
  for (const name of await client.get_children(path, false)) {
    await deleteBelow(client, `${path}/${name}`);
  }
  await client.delete_(path, -1);
}

/** A check with a client and a root znode of its own. */
function withClient(body) {
  return async () => {
    const client = await open();
    root = `/native-${process.pid}-${Date.now()}-${turn++}`;
    try {
      await client.create(root, "", 0);
      await body(client);
      await deleteBelow(client, root);
    } finally {
      client.close();
    }
  };
}

/** Expects a call to fail with this code of the C client. */
const fails = (promise, code) => assert.rejects(promise, (problem) => problem.code === code || problem === code || String(problem.message).includes(String(code)));

runChecks([
  ["create, read, set, list and delete", withClient(async (client) => {
    assert.equal(await client.create(`${root}/a`, "one", 0), `${root}/a`);
    const [stat, data] = await client.get(`${root}/a`, false);
    assert.equal(data.toString(), "one");
    assert.equal(stat.version, 0);
    assert.equal((await client.set(`${root}/a`, "three", 0)).version, 1);
    assert.equal((await client.exists(`${root}/a`, false)).dataLength, 5);
    assert.deepEqual(await client.get_children(root, false), ["a"]);
    const [children, parent] = await client.get_children2(root, false);
    assert.deepEqual(children, ["a"]);
    assert.equal(parent.numChildren, 1);
    await client.delete_(`${root}/a`, 1);
  })],
  ["errors carry their codes", withClient(async (client) => {
    await fails(client.create(`${root}/none/child`, "", 0), constants.ZNONODE);
    await fails(client.create(root, "", 0), constants.ZNODEEXISTS);
    await fails(client.set(root, "", 9), constants.ZBADVERSION);
  })],
  ["sequential and ephemeral znodes", withClient(async (client) => {
    assert.equal(await client.create(`${root}/s-`, "", constants.ZOO_SEQUENCE), `${root}/s-0000000000`);
    const path = await client.create(`${root}/s-`, "", constants.ZOO_SEQUENCE | constants.ZOO_EPHEMERAL);
    assert.equal(path, `${root}/s-0000000001`);
    assert.equal((await client.exists(path, false)).ephemeralOwner, client.client_id);
  })],
  ["watches", withClient(async (client) => {
    const events = [];
    let wake = () => {};
    const on = (type, state, path) => {
      events.push([type, path]);
      wake();
    };
    const next = async () => {
      while (events.length === 0) {
        await new Promise((resolve) => (wake = resolve));
      }
      return events.shift();
    };
    await client.w_exists(`${root}/w`, on).catch(() => {});
    await client.create(`${root}/w`, "", 0);
    assert.deepEqual(await next(), [constants.ZOO_CREATED_EVENT, `${root}/w`]);
    await client.w_get(`${root}/w`, on);
    await client.set(`${root}/w`, "x", -1);
    assert.deepEqual(await next(), [constants.ZOO_CHANGED_EVENT, `${root}/w`]);
    await client.w_get_children(`${root}/w`, on);
    await client.create(`${root}/w/c`, "", 0);
    assert.deepEqual(await next(), [constants.ZOO_CHILD_EVENT, `${root}/w`]);
  })],
  ["ACLs", withClient(async (client) => {
    const acls = await client.get_acl(root);
    assert.ok(JSON.stringify(acls).includes("anyone"), JSON.stringify(acls));
    await client.set_acl(root, 0, [{ perms: constants.ZOO_PERM_ALL, scheme: "world", auth: "anyone" }]);
    await fails(client.set_acl(root, 0, [{ perms: constants.ZOO_PERM_ALL, scheme: "world", auth: "anyone" }]), constants.ZBADVERSION);
  })],
  ["five hundred pipelined writes", withClient(async (client) => {
    const writes = [];
    for (let index = 0; index < 500; index++) {
      writes.push(client.set(root, String(index), -1));
    }
    const stats = await Promise.all(writes);
    assert.deepEqual(stats.map((stat) => stat.version), [...Array(500).keys()].map((index) => index + 1));
  })],
]);
