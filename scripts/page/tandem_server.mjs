// The server under test: a proxy with the page and a supervised engine, on loopback, and clients that load it.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createWriteStream } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

export const apiKey = "page-test-key";

/** Polls until ok returns something true, and returns that; for what sends no event, such as another program. */
export async function eventually(what, ok, limit = 20_000) {
  const end = Date.now() + limit;
  let problem = "";
  for (;;) {
    try {
      const value = await ok();
      if (value) return value;
    } catch (e) {
      problem = `: ${e.message}`;
    }
    if (Date.now() > end) throw new Error(`not within ${limit / 1000} s: ${what}${problem}`);
    await sleep(50);
  }
}

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

/** One server: proxy and engine of their own, whose output goes to files in logs. */
export class TandemServer {
  processes = new Set();
  clients = [];
  loadStop = new AbortController();

  static async start({ proxy, engine, logs, settings = {} }) {
    const server = new TandemServer();
    server.dir = await mkdtemp(join(tmpdir(), "tnd")); // short: a socket's path holds 108 bytes
    server.binaries = { proxy, engine };
    server.logs = logs;
    server.port = await freePort();
    server.url = `http://127.0.0.1:${server.port}`;
    await mkdir(join(server.dir, "models"));
    await mkdir(logs, { recursive: true });
    const kept = Object.fromEntries(["PATH", "HOME", "TMPDIR", "LANG"].filter((n) => process.env[n]).map((n) => [n, process.env[n]]));
    server.env = {
      ...kept, HOST: "127.0.0.1", PORT: String(server.port), ENGINE_SOCKET: join(server.dir, "e.sock"), API_KEYS: `test:${apiKey}`, RATE_LIMIT: "off",
      MODELS_DIR: join(server.dir, "models"), CACHE_DIR: join(server.dir, "cache"), ...settings,
    };
    server.startProxy();
    server.supervisor = server.launch("engine", engine, "supervise");
    try {
      await server.ready();
    } catch (problem) {
      await server.stop();
      throw problem;
    }
    return server;
  }

  launch(name, program, ...args) {
    const child = spawn(program, args, { env: this.env, stdio: ["ignore", "pipe", "pipe"] });
    const log = createWriteStream(join(this.logs, `${name}.log`), { flags: "a" });
    child.stdout.pipe(log, { end: false });
    child.stderr.pipe(log, { end: false });
    child.ended = once(child, "close").then(() => { this.processes.delete(child); log.end(); });
    this.processes.add(child);
    return child;
  }

  startProxy() { this.proxy = this.launch("proxy", this.binaries.proxy, "serve"); }

  ready() {
    return eventually("the server is ready", async () => {
      const gone = [this.proxy, this.supervisor].some((child) => child.exitCode !== null);
      if (gone) throw new Error(`a program ended, see ${this.logs}`);
      return (await fetch(`${this.url}/readyz`)).ok;
    }, 60_000);
  }

  /** Starts clients that ask and pause until the server stops: a bounded load. */
  load(clients, pause, ask) {
    const { signal } = this.loadStop;
    for (let c = 0; c < clients; c++) {
      this.clients.push((async () => {
        for (let n = c; !signal.aborted; n++) {
          try {
            await (await this.infer(ask(n), signal)).text();
            await sleep(pause, undefined, { signal });
          } catch {
            if (!signal.aborted) await sleep(pause); // the server is away, which a test may want
          }
        }
      })());
    }
  }

  infer(body, signal) { return this.post("/infer", body, signal); }

  chat(body) { return this.post("/v1/chat/completions", body); }

  post(path, body, signal) {
    return fetch(this.url + path, { method: "POST", headers: { "Content-Type": "application/json", "X-API-Key": apiKey }, body: JSON.stringify(body), signal });
  }

  /** The process id of the engine below its supervisor; 0 while there is none. */
  async enginePID() {
    for (const pid of (await readdir("/proc")).filter((name) => /^\d+$/.test(name))) {
      const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => ""); // it may have ended
      const [state, parent] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      if (Number(parent) === this.supervisor.pid && state !== "Z") return Number(pid);
    }
    return 0;
  }

  /** Returns a function that kills the engine at once; no other one starts until allowEngineRestart is called. */
  async prepareEngineKill() {
    const pid = await eventually("an engine runs", () => this.enginePID());
    return () => {
      this.supervisor.kill("SIGSTOP");
      process.kill(pid, "SIGKILL");
    };
  }

  allowEngineRestart() { this.supervisor.kill("SIGCONT"); }

  async endProcess(child) {
    child.kill("SIGCONT");
    child.kill("SIGTERM");
    const late = setTimeout(() => child.kill("SIGKILL"), 15_000);
    await child.ended;
    clearTimeout(late);
  }

  async stop() {
    this.loadStop.abort();
    await Promise.all(this.clients);
    await Promise.all([...this.processes].map((child) => this.endProcess(child)));
    await rm(this.dir, { recursive: true, force: true });
  }
}
