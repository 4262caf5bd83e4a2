// node-zookeeper-client against the server named by ZK=host:port.
"use strict";

const assert = require("node:assert");
const { promisify } = require("node:util");
const zookeeper = require("node-zookeeper-client");
const { runChecks } = require("../support/checks.js");

const root = `/node-${process.pid}-${Date.now()}`;
const calls = ["create", "remove", "exists", "getData", "setData", "getChildren", "getACL", "setACL", "mkdirp", "removeRecursive"];

/** A connected client whose calls return promises. */
async function open(options = {}) {
  const client = zookeeper.createClient(process.env.ZK, { sessionTimeout: 30000, ...options });
  const connected = new Promise((resolve) => client.once("connected", resolve));
  client.connect();
  await connected;
  for (const call of calls) {
    client[`${call}Async`] = promisify(client[call]).bind(client);
  }
  return client;
}

/** A check with a client and a root znode of its own. */
function withClient(body) {
  return async () => {
    const client = await open();
    try {
      await client.mkdirpAsync(root);
      await body(client);
      await client.removeRecursiveAsync(root, -1).catch(() => {});
    } finally {
      client.close();
    }
  };
}

const named = (name) => (problem) => problem.getName && problem.getName() === name;

const event = () => {
  let resolve;
  const promise = new Promise((done) => (resolve = done));
  return [promise, resolve];
};

runChecks([
  ["create, read, set, list and remove", withClient(async (client) => {
    assert.equal(await client.createAsync(`${root}/a`, Buffer.from("one")), `${root}/a`);
    assert.equal((await client.getDataAsync(`${root}/a`)).toString(), "one");
    const stat = await client.setDataAsync(`${root}/a`, Buffer.from("three"), 0);
    assert.equal(stat.version, 1);
    assert.equal(stat.dataLength, 5);
    assert.deepEqual(await client.getChildrenAsync(root), ["a"]);
    await client.removeAsync(`${root}/a`, 1);
    assert.ok(!(await client.existsAsync(`${root}/a`)));
  })],
  ["errors carry their names", withClient(async (client) => {
    await assert.rejects(client.createAsync(`${root}/none/child`, null), named("NO_NODE"));
    await assert.rejects(client.createAsync(root, null), named("NODE_EXISTS"));
    await assert.rejects(client.setDataAsync(root, Buffer.alloc(0), 7), named("BAD_VERSION"));
    await client.createAsync(`${root}/a`, null);
    await assert.rejects(client.removeAsync(root, -1), named("NOT_EMPTY"));
  })],
  ["sequential and ephemeral znodes", withClient(async (client) => {
    const { CreateMode } = zookeeper;
    assert.equal(await client.createAsync(`${root}/s-`, null, CreateMode.PERSISTENT_SEQUENTIAL), `${root}/s-0000000000`);
    assert.equal(await client.createAsync(`${root}/s-`, null, CreateMode.EPHEMERAL_SEQUENTIAL), `${root}/s-0000000001`);
    const stat = await client.existsAsync(`${root}/s-0000000001`);
    assert.deepEqual(stat.ephemeralOwner, client.getSessionId());
    await assert.rejects(client.createAsync(`${root}/s-0000000001/x`, null), named("NO_CHILDREN_FOR_EPHEMERALS"));
  })],
  ["watches", withClient(async (client) => {
    const [created, onCreated] = event();
    await new Promise((resolve, reject) => client.exists(`${root}/w`, onCreated, (problem) => (problem ? reject(problem) : resolve())));
    await client.createAsync(`${root}/w`, null);
    assert.equal((await created).getName(), "NODE_CREATED");
    const [changed, onChanged] = event();
    const [children, onChildren] = event();
    await new Promise((resolve, reject) => client.getData(`${root}/w`, onChanged, (problem) => (problem ? reject(problem) : resolve())));
    await new Promise((resolve, reject) => client.getChildren(`${root}/w`, onChildren, (problem) => (problem ? reject(problem) : resolve())));
    await client.setDataAsync(`${root}/w`, Buffer.from("x"), -1);
    await client.createAsync(`${root}/w/c`, null);
    assert.equal((await changed).getName(), "NODE_DATA_CHANGED");
    assert.equal((await children).getName(), "NODE_CHILDREN_CHANGED");
  })],
  ["an ephemeral goes with its session", withClient(async (client) => {
    const other = await open();
    await other.createAsync(`${root}/e`, null, zookeeper.CreateMode.EPHEMERAL);
    const [gone, onGone] = event();
    await new Promise((resolve, reject) => client.exists(`${root}/e`, onGone, (problem) => (problem ? reject(problem) : resolve())));
    other.close();
    assert.equal((await gone).getName(), "NODE_DELETED");
  })],
  ["transactions: whole or not at all", withClient(async (client) => {
    const commit = (transaction) => new Promise((resolve, reject) =>
      transaction.commit((problem, results) => (problem ? reject(problem) : resolve(results))));
    const results = await commit(client.transaction().create(`${root}/t`, Buffer.from("1")).setData(`${root}/t`, Buffer.from("2"), 0).check(`${root}/t`, 1));
    assert.equal(results.length, 3);
    assert.equal((await client.getDataAsync(`${root}/t`)).toString(), "2");
    await assert.rejects(commit(client.transaction().remove(`${root}/t`, -1).check(root, 99)), named("BAD_VERSION"));
    assert.ok(await client.existsAsync(`${root}/t`));
  })],
  ["digest authentication and ACLs", withClient(async (client) => {
    const owner = await open();
    owner.addAuthInfo("digest", Buffer.from("node:secret"));
    await promisify((done) => owner.create(`${root}/mine`, Buffer.from("x"), zookeeper.ACL.CREATOR_ALL_ACL, done))();
    await assert.rejects(client.getDataAsync(`${root}/mine`), named("NO_AUTH"));
    assert.equal((await owner.getDataAsync(`${root}/mine`)).toString(), "x");
    const acls = await owner.getACLAsync(`${root}/mine`);
    assert.equal(acls[0].id.scheme, "digest");
    await owner.setACLAsync(`${root}/mine`, zookeeper.ACL.OPEN_ACL_UNSAFE, 0);
    assert.equal((await client.getDataAsync(`${root}/mine`)).toString(), "x");
    owner.close();
  })],
  ["a thousand pipelined writes", withClient(async (client) => {
    const writes = [];
    for (let index = 0; index < 1000; index++) {
      writes.push(client.setDataAsync(root, Buffer.from(String(index)), -1));
    }
    const stats = await Promise.all(writes);
    assert.deepEqual(stats.map((stat) => stat.version), [...Array(1000).keys()].map((index) => index + 1));
  })],
]);
