// The programs under test: a proxy with the page and a supervised engine, on loopback, and clients that load them.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createWriteStream } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

export const key = "page-test-key";

/** Polls until ok gives something true; another program offers no event to wait for. */
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
export class Stack {
  processes = new Set();
  clients = [];
  loading = new AbortController();

  static async start({ proxy, engine, logs, settings = {} }) {
    const stack = new Stack();
    stack.dir = await mkdtemp(join(tmpdir(), "tnd")); // short: a socket's path holds 108 bytes
    stack.programs = { proxy, engine };
    stack.logs = logs;
    stack.port = await freePort();
    stack.url = `http://127.0.0.1:${stack.port}`;
    await mkdir(join(stack.dir, "models"));
    await mkdir(logs, { recursive: true });
    const kept = Object.fromEntries(["PATH", "HOME", "TMPDIR", "LANG"].filter((n) => process.env[n]).map((n) => [n, process.env[n]]));
    stack.env = {
      ...kept, HOST: "127.0.0.1", PORT: String(stack.port), ENGINE_SOCKET: join(stack.dir, "e.sock"), API_KEYS: `test:${key}`, RATE_LIMIT: "off",
      MODELS_DIR: join(stack.dir, "models"), CACHE_DIR: join(stack.dir, "cache"), ...settings,
    };
    stack.startProxy();
    stack.supervisor = stack.launch("engine", engine, "supervise");
    try {
      await stack.ready();
    } catch (problem) {
      await stack.stop();
      throw problem;
    }
    return stack;
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

  startProxy() { this.proxy = this.launch("proxy", this.programs.proxy, "serve"); }

  ready() {
    return eventually("the server is ready", async () => {
      const gone = [this.proxy, this.supervisor].some((child) => child.exitCode !== null);
      if (gone) throw new Error(`a program ended, see ${this.logs}`);
      return (await fetch(`${this.url}/readyz`)).ok;
    }, 60_000);
  }

  /** Clients that ask and wait, each with another version, until the stack stops: a bounded load. */
  load(clients, pause, ask) {
    const { signal } = this.loading;
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

  infer(body, signal) {
    return fetch(`${this.url}/infer`, { method: "POST", headers: { "Content-Type": "application/json", "X-API-Key": key }, body: JSON.stringify(body), signal });
  }

  /** The engine's process below its supervisor. */
  async enginePID() {
    for (const pid of (await readdir("/proc")).filter((name) => /^\d+$/.test(name))) {
      const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => ""); // it may have ended
      const [state, parent] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      if (Number(parent) === this.supervisor.pid && state !== "Z") return Number(pid);
    }
    return 0;
  }

  /** Gives a function that kills the engine at once, after which no other one starts until letRestart. */
  async engineKiller() {
    const pid = await eventually("an engine runs", () => this.enginePID());
    return () => {
      this.supervisor.kill("SIGSTOP");
      process.kill(pid, "SIGKILL");
    };
  }

  letRestart() { this.supervisor.kill("SIGCONT"); }

  async end(child) {
    child.kill("SIGCONT");
    child.kill("SIGTERM");
    const late = setTimeout(() => child.kill("SIGKILL"), 15_000);
    await child.ended;
    clearTimeout(late);
  }

  async stop() {
    this.loading.abort();
    await Promise.all(this.clients);
    await Promise.all([...this.processes].map((child) => this.end(child)));
    await rm(this.dir, { recursive: true, force: true });
  }
}
