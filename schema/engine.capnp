# The contract between proxy and engine. Frames of this schema travel in both directions over one Unix socket; the proxy listens,
# engines dial. Read this file first.
#
# Append-only: ordinals are never reused, retyped or removed; new union members only at the end; defaults never change. Readers ignore
# what they don't know. Durations travel, never clock readings. Text that may be a part of a character is Data.
#
# Every frame about a request carries (id, attempt). The proxy raises the attempt when a connection is lost and drops frames of an older
# one, so a token is delivered exactly once.

@0xd62c8c7a1f3e9b57;

using Go = import "/go.capnp";
$Go.package("schema");
$Go.import("tandem/schema");

struct Frame {
  id      @0 :UInt64;   # request or call id; 0: about the connection
  attempt @1 :UInt32;   # of the request; 0 for everything else
  union {
    hello     @2  :Hello;         # first frame, both ways
    infer     @3  :InferRequest;  # proxy to engine
    cancel    @4  :Void;          # proxy to engine, idempotent
    accepted  @5  :Accepted;      # engine to proxy, before the first token
    step      @6  :Step;          # engine to proxy, tokens and ends of all requests in one decode step
    event     @7  :Event;         # engine to proxy, what happens to a model
    catalog   @8  :Catalog;       # engine to proxy, after hello and whenever it changes
    stats     @9  :Stats;         # engine to proxy, on change, at most every 100 ms, and once a second
    call      @10 :Call;          # proxy to engine, unary; answered by reply with the same id
    reply     @11 :Reply;
    ping      @12 :Void;          # proxy to engine
    pong      @13 :Pong;
    draining  @14 :Draining;      # engine to proxy: got SIGTERM, still works
    drained   @15 :Void;          # proxy to engine: nothing of yours is left, go
    move      @16 :Void;          # proxy to engine: hand all sequences back, another engine takes them
    goAway    @17 :Text;          # either way: this connection ends, for this reason
    moved     @18 :Void;          # engine to proxy: every sequence was handed back
  }
}

struct Hello {
  protocol       @0  :UInt16;   # highest version spoken
  minProtocol    @1  :UInt16;   # lowest version spoken
  build          @2  :Text;     # program version, e.g. "1.0.0+abc123"
  instanceId     @3  :UInt64;   # random, new with every process start
  # The rest is said by the engine only.
  numericsId     @4  :Text;     # equal ids give equal tokens: library build, patches, backend, KV mode, sampler version
  lastExit       @5  :LastExit; # how the engine before this one ended
  limits         @6  :Limits;
  device         @7  :Text;     # backend of the device in use: cuda, cpu, mock …
  features       @8  :List(Text);
  libraryCommit  @9  :Text;     # llama.cpp commit
  devices        @10 :List(Device);
  processId      @11 :Int32;
  backends       @12 :List(Backend); # compute backends that are installed
}

struct Device {
  name        @0 :Text;
  backend     @1 :Text;
  memoryTotal @2 :UInt64;  # bytes
  memoryFree  @3 :UInt64;  # bytes, at hello
  description @4 :Text;    # the hardware's own name
}

struct Backend {
  name    @0 :Text;          # cuda, cpu …
  devices @1 :List(Device);
  problem @2 :Text;          # why it gives no device; empty when it gives one
}

struct LastExit {
  kind         @0 :ExitKind;
  signal       @1 :Int32;   # for signal
  code         @2 :Int32;   # for exit
  uptimeNs     @3 :UInt64;
  crashes      @4 :UInt32;  # without progress, in the supervisor's window
  loadingModel @5 :Text;    # it died inside this load, the oldest one in hand; empty otherwise
  loadingVersion @6 :Text;
  loadingRevision @7 :Data;
  loads        @8 :List(ModelRef);  # every load in hand, oldest first
}

enum ExitKind {
  none     @0;   # first start, or nobody knows
  exit     @1;
  signal   @2;
  oom      @3;   # killed by the kernel for memory
  stall    @4;   # killed by the supervisor: heartbeat overdue
  upgrade  @5;   # asked to go, went
}

struct Limits {
  maxFrameBytes    @0 :UInt32;
  maxPromptBytes   @1 :UInt32;
  backlogTokens    @2 :UInt32;  # tokens that the engine keeps for a slow proxy before it hangs up
}

struct InferRequest {
  model           @0  :Text;
  version         @1  :Text;
  prompt          @2  :Data;         # UTF-8, what the client wrote
  system          @3  :Data;         # absent: the template may write its own; empty: none
  messages        @4  :List(Message);# replaces prompt and system when not empty
  raw             @5  :Bool;         # no chat template
  maxNewTokens    @6  :UInt32;
  sampling        @7  :Sampling;
  stops           @8  :List(Text);
  jsonSchema      @9  :Data;
  timeoutNs       @10 :UInt64;       # what is left of the deadline; 0: none
  traceparent     @11 :Text;
  requestKey      @12 :Text;         # X-Request-Id, for logs only
  owner           @13 :UInt64;       # fair-share key: a hash of the API key's name
  rendered        @14 :Rendered;     # replay: what Accepted returned; the text isn't rendered again
  generated       @15 :List(Int32);  # replay: token ids received so far
  replay          @16 :ReplayMode;
  expectRevision  @17 :Data;         # replay: refuse with modelChanged when it differs and generated isn't empty
  countCache      @18 :Bool = true;  # false for a replay: neither hit nor miss
  grammar         @19 :Text;         # GBNF given by the client
  parallelToolCalls @20 :Bool;
  tools           @21 :Data;         # JSON in the form of OpenAI's API
  toolChoice      @22 :Data;
  fitContext      @23 :Bool;         # a maxNewTokens above the context is cut to it; 0: all that the prompt leaves of it
  plainSampling   @24 :Bool;         # what neither request nor model sets: temperature 1 and nothing else
  task            @25 :Task;
  promptTokens    @26 :List(Int32);  # the prompt as token ids of the model, in place of prompt, system and messages; raw
  templateOptions @27 :Data;         # JSON object of values for the chat template: enable_thinking, reasoning_effort …
                                     # continue_final_message isn't for it: the answer goes on with the last message
  promptLogprobs  @28 :Bool;         # log-probabilities of the prompt's tokens, with sampling.topLogprobs entries each
  ignoreEnd       @29 :Bool;         # the end token is never drawn
  splitOutput     @30 :Bool;         # token texts are an encoded part stream: content, reasoning, tool calls (schema/parts)
  ownerWeight     @31 :Float32;      # share of the owner against others; 0: 1
}

enum ReplayMode { none @0; prefill @1; decode @2; }

enum Task {
  generate @0;  # an answer
  embed    @1;  # the summary has the prompt's embedding, and no token comes
  score    @2;  # the same with one number: how well messages[0] (a query) and messages[1] (a document) fit
}

struct Message {
  role       @0 :Text;  # system, user, assistant, tool
  content    @1 :Data;
  name       @2 :Text;  # of a tool message: the function that was called
  toolCalls  @3 :Data;  # of an assistant: a JSON array of {"id", "type": "function", "function": {"name", "arguments"}}
  toolCallId @4 :Text;  # of a tool message
  reasoning  @5 :Data;  # of an assistant: what it thought before it answered
}

# Every field has a presence bit of its own: what is absent comes from the model's defaults, then from the engine's.
struct Sampling {
  temperature      @0  :Float32;
  topK             @1  :Int32;
  topP             @2  :Float32;
  minP             @3  :Float32;
  repeatPenalty    @4  :Float32;
  presencePenalty  @5  :Float32;
  frequencyPenalty @6  :Float32;
  penaltyWindow    @7  :Int32;
  present          @8  :UInt32;        # bit n: the field with ordinal n is set
  seeds            @9  :List(UInt64);  # one a choice; never empty, the proxy picks when the client didn't
  choice           @10 :UInt32;        # which choice this request is
  topLogprobs      @11 :UInt8;
  logitBias        @12 :List(Bias);
  wantLogprobs     @13 :Bool;          # Token.logprob is computed; without this and topLogprobs it is NaN
}

struct Bias { token @0 :Int32; bias @1 :Float32; }

struct Rendered {
  promptTokens @0 :List(Int32);
  grammar      @1 :Text;          # GBNF as it is, or its kind and a line end before it: json_schema, regex, lark
  triggers     @2 :List(Trigger);  # a lazy grammar starts at one of these
  stops        @3 :List(Text);
  parserState  @4 :Data;           # of the output parser (tools, reasoning), opaque; not empty with splitOutput
}

struct Trigger { kind @0 :UInt8; value @1 :Text; token @2 :Int32; }

struct Accepted {
  revision     @0 :Data;      # sha256 of base and adapter
  rendered     @1 :Rendered;
  maxNewTokens @2 :UInt32;    # after cutting to the context
  cacheHit     @3 :CacheLookup;
  model        @4 :Text;      # resolved names
  version      @5 :Text;
  sampling     @6 :Sampling;  # every field filled in, as a replay sends it
}

enum CacheLookup { uncounted @0; hit @1; miss @2; }

struct Step {
  durationNs @0 :UInt64;        # of the decode step
  tokens     @1 :List(Token);
  done       @2 :List(Summary); # each in the same frame as its last token
  base       @3 :Text;
  prompts    @4 :List(PromptPart);
}

# Log-probabilities of a part of a prompt, in order and before the first token. The prompt's first token has none: NaN.
struct PromptPart {
  requestId @0 :UInt64;
  attempt   @1 :UInt32;
  from      @2 :UInt32;       # place of the first of these tokens in the prompt
  tokens    @3 :List(ScoredToken);
}

struct ScoredToken { token @0 :Int32; logprob @1 :Float32; piece @2 :Data; top @3 :List(TopLogprob); }

struct Token {
  requestId       @0 :UInt64;
  attempt         @1 :UInt32;
  choice          @2 :UInt32;
  index           @3 :UInt32;   # place in the answer, from 0
  tokenId         @4 :Int32;
  text            @5 :Data;     # whole characters released by this token; may be empty or hold text of earlier tokens
  textEnd         @6 :UInt32;   # bytes of the answer released so far, this text included
  logprob         @7 :Float32;
  margin          @8 :Float32;  # gap to the runner-up in what was maximised
  sinceLastNs     @9 :UInt64;   # since this sequence's last token; for the first, since its prefill began
  topLogprobs     @10 :List(TopLogprob);
  piece           @11 :Data;    # the token's own bytes, may be a part of a character; only with wantLogprobs
}

struct TopLogprob { token @0 :Int32; logprob @1 :Float32; text @2 :Data; }

struct Summary {
  requestId    @0 :UInt64;
  attempt      @1 :UInt32;
  reason       @2 :FinishReason;
  failure      @3 :Failure;     # for error
  promptTokens @4 :UInt32;
  cachedTokens @5 :UInt32;
  outputTokens @6 :UInt32;      # replayed ones included
  queueNs      @7 :UInt64;
  prefillNs    @8 :UInt64;
  decodeNs     @9 :UInt64;
  restartNs    @10 :UInt64;     # replay
  rendererNs   @11 :UInt64;     # template and tokenising
  reasoningTokens @12 :UInt32;  # of outputTokens
  stop         @13 :Text;       # the request's stop string that ended the answer
  embedding    @14 :Data;       # of task embed and score: float32, little-endian
}

enum FinishReason { unspecified @0; stop @1; length @2; cancelled @3; deadline @4; error @5; movedAway @6; }

struct Failure {
  code      @0 :Text;   # an error type of the proxy's table
  text      @1 :Text;   # for people
  param     @2 :Text;   # the request's field, when one is to blame
  retryable @3 :Bool;
  promptTokens @4 :UInt32; # of context_length_exceeded: what the prompt has; 0: not counted
}

struct Event {
  kind     @0 :EventKind;
  model    @1 :Text;
  version  @2 :Text;
  phase    @3 :Text;     # of progress: unpack, checksum, weights, context, warm-up, adapter
  ratio    @4 :Float32;  # of progress, 0 to 1
  tookNs   @5 :UInt64;   # of loaded
  bytes    @6 :UInt64;   # of loaded: what evicting this entry frees
  reason   @7 :Text;     # of loadFailed and evicted: a closed set, also a metric label
  text     @8 :Text;     # of loadFailed, for people
  revision @9 :Data;
  facts    @10 :Facts;   # of loaded
}

enum EventKind { unspecified @0; loading @1; progress @2; loaded @3; loadFailed @4; evicted @5; }

struct Facts {
  architecture @0 :Text;
  quantization @1 :Text;
  contextTokens @2 :UInt32;
  cells        @3 :UInt32;
  sequences    @4 :UInt32;
  weightBytes  @5 :UInt64;
  cacheBytes   @6 :UInt64;
  backend      @7 :Text;
  chatTemplate @8 :Bool;
  tools        @9 :Bool;        # the chat template has a form for tools of its own
  reasoning    @10 :Bool;       # the chat template has a form for reasoning
  embeddings   @11 :Bool;       # task embed is possible
  scores       @12 :Bool;       # task score is possible
  embeddingSize @13 :UInt32;    # numbers of an embedding
  generates    @14 :Bool = true;# false: an encoder, which only embeds or scores
  memory       @15 :List(DeviceMemory); # of each device that holds anything
  cellsLimit   @16 :Text;       # what decided the number of cells, for people
  cacheTypeK   @17 :Text;       # formats of the KV cache, as in the settings; empty: it has none
  cacheTypeV   @18 :Text;
  flashAttention @19 :Bool;
  kvLayout     @20 :Text;       # unified or streams; empty: it has no KV cache
  sampling     @21 :Text;       # host or device, which finds the candidates of a draw; empty: it draws no tokens
  samplingDecidedBy @22 :Text;  # for people
}

# What of a base lies on one device, in bytes.
struct DeviceMemory {
  device       @0 :Text;
  weightBytes  @1 :UInt64;
  cacheBytes   @2 :UInt64;
  computeBytes @3 :UInt64;
  adapterBytes @4 :UInt64;      # of the versions that are loaded now
}

struct Catalog {
  models    @0 :List(Model);
  cacheSize @1 :UInt32;       # CACHE_SIZE
  loaded    @2 :List(Loaded); # what is in the cache now
}

struct Model {
  name           @0 :Text;
  description    @1 :Text;
  domain         @2 :Text;
  defaultVersion @3 :Text;
  versions       @4 :List(Version);
  contextTokens  @5 :UInt32;  # what one request may hold; before a load as far as the file tells, 0: it doesn't
  bytes          @6 :UInt64;  # of the base's files
  quantization   @7 :Text;    # as in Facts, from the file's header; empty: not known
  architecture   @8 :Text;
  abilities      @9 :Facts;   # only what requests may ask of it, as far as its file tells before a load; absent: it doesn't
}

struct Version { name @0 :Text; problem @1 :Text; }  # problem: why it can't be loaded; empty when it can

struct Loaded { model @0 :Text; version @1 :Text; bytes @2 :UInt64; facts @3 :Facts; loading @4 :Bool; }

struct Stats {
  bases @0 :List(BaseStats);
  executors @1 :List(Beat);
}

struct BaseStats {
  model         @0 :Text;
  freeSequences @1 :UInt32;
  sequences     @2 :UInt32;  # free or not: the proxy's credit
  prefilling    @3 :UInt32;
  decoding      @4 :UInt32;
  waiting       @5 :UInt32;
  freeCells     @6 :UInt32;
  cells         @7 :UInt32;
}

struct Pong { beats @0 :List(Beat); }

struct Beat {
  executor @0 :Text;    # device name, or "load <model>"
  phase    @1 :Text;
  counter  @2 :UInt64;  # moves while it makes progress
  ageNs    @3 :UInt64;  # since counter moved
  budgetNs @4 :UInt64;  # an older age means hung
}

struct Draining { graceNs @0 :UInt64; replacement @1 :Bool; }  # replacement: another engine is expected

struct Call {
  union {
    metrics  @0 :Void;       # Prometheus text of the engine's own metrics
    load     @1 :ModelRef;   # load now, answer when done
    tokenize @2 :Tokenize;
    detokenize @3 :Detokenize;
    render   @4 :InferRequest; # the prompt of a request as the model would read it; nothing is computed
  }
}

struct ModelRef { model @0 :Text; version @1 :Text; }

struct Tokenize {
  model      @0 :Text;
  version    @1 :Text;
  text       @2 :Data;
  raw        @3 :Bool;
  addSpecial @4 :Bool;  # with raw: the tokens that the model has around every text, as a begin token
}

struct Detokenize { model @0 :Text; version @1 :Text; tokens @2 :List(Int32); }

struct RenderedText {
  text   @0 :Data;         # control tokens written out
  tokens @1 :List(Int32);
}

struct Reply {
  union {
    failure @0 :Failure;     # also for a call that the engine doesn't know
    metrics @1 :Data;
    ok      @2 :Void;
    tokens  @3 :List(Int32);
    text    @4 :Data;          # of detokenize
    rendered @5 :RenderedText;
  }
}
