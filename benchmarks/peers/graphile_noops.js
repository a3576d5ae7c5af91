// graphile-worker with the settings of its own performance test: `node graphile_noops.js VERB NUMBER...`.
//
// `work` runs until it is stopped; `install`, `fill` and `produce` print the seconds they took. NODE_PATH names the folder
// that holds the package. graphile-worker has no time limit for a job, and deletes it when it is done.
const fs = require("node:fs");
const { makeWorkerUtils, run } = require("graphile-worker");

const CONCURRENCY = 24;
const preset = {
  worker: {
    connectionString: process.env.PEER_URL,
    concurrentJobs: CONCURRENCY,
    maxPoolSize: CONCURRENCY + 1,
    localQueue: { size: 500, refetchDelay: { durationMs: 10 } },
    completeJobBatchDelay: 0,
    failJobBatchDelay: 0,
  },
};
// process.hrtime() of Node is CLOCK_MONOTONIC, the clock of Python's time.monotonic().
const monotonic = () => Number(process.hrtime.bigint()) / 1e9;
const lags = process.env.LATENCY_FILE ? fs.openSync(process.env.LATENCY_FILE, "a") : -1;
const taskList = {
  noop: async (payload) => {
    if (payload.called !== undefined) fs.writeSync(lags, `${monotonic() - payload.called}\n`);
  },
};

const verbs = {
  async install() {
    const utils = await makeWorkerUtils({ preset });
    await utils.migrate();
    await utils.release();
  },
  async fill(jobs) {
    const utils = await makeWorkerUtils({ preset });
    for (let start = 0; start < jobs; start += 1000) {
      const size = Math.min(1000, jobs - start);
      await utils.addJobs(Array.from({ length: size }, (_, n) => ({ identifier: "noop", payload: { n: start + n } })));
    }
    await utils.release();
  },
  // Enqueues one job every so often, each with the moment of its enqueue.
  async produce(jobs, microseconds) {
    const utils = await makeWorkerUtils({ preset });
    const start = monotonic();
    for (let n = 0; n < jobs; n++) {
      const pause = start + (n * microseconds) / 1e6 - monotonic();
      await new Promise((resolve) => setTimeout(resolve, Math.max(0, pause * 1000)));
      await utils.addJob("noop", { called: monotonic() });
    }
    await utils.release();
  },
  async work() {
    const runner = await run({ preset, taskList });
    await runner.promise;
  },
};

const [verb, ...numbers] = process.argv.slice(2);
const start = monotonic();
verbs[verb](...numbers.map(Number)).then(
  () => console.log(monotonic() - start),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
