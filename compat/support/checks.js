// Runs named checks one after another and prints the lines that compat/run counts: ok and FAIL.
"use strict";

const LIMIT_MS = 60000;

/** A promise that fails when it takes longer than any check needs. */
function within(promise, what) {
  let timer;
  const late = new Promise((resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${LIMIT_MS} ms: ${what}`)), LIMIT_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Runs [name, async function] pairs and ends the process. */
async function runChecks(checks) {
  let failed = 0;
  for (const [name, body] of checks) {
    const start = Date.now();
    try {
      await within(body(), name);
      console.log(`ok ${name} (${Date.now() - start} ms)`);
    } catch (problem) {
      failed++;
      console.log(`FAIL ${name}: ${String(problem && problem.message ? problem.message : problem).replace(/\n/g, " ")}`);
      console.error(problem);
    }
  }
  process.exit(failed ? 1 : 0);
}

module.exports = { runChecks, within };
