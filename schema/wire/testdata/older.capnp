# What a build before this one might have spoken: the first members of the schema only. older-*.bin were written with it:
#   echo '(id = 7, attempt = 2, infer = (model = "demo", ...))' | capnp encode older.capnp Frame > older-infer.bin
@0x9b1f5a0c7c3de811;

struct Frame {
  id      @0 :UInt64;
  attempt @1 :UInt32;
  union {
    hello  @2 :Hello;
    infer  @3 :InferRequest;
    cancel @4 :Void;
  }
}

struct Hello {
  protocol    @0 :UInt16;
  minProtocol @1 :UInt16;
  build       @2 :Text;
  instanceId  @3 :UInt64;
}

struct InferRequest {
  model   @0 :Text;
  version @1 :Text;
  prompt  @2 :Data;
}
