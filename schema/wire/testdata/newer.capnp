# What a build after this one might speak: a union member, a struct field and an enum value that this build doesn't know. newer-*.bin were
# written with it by `capnp encode newer.capnp Frame`.
@0xa6d1c51f7b2f4a93;

struct Frame {
  id      @0 :UInt64;
  attempt @1 :UInt32;
  union {
    hello   @2 :Hello;
    u3 @3 :Void; u4 @4 :Void; u5 @5 :Void; u6 @6 :Void;
    event   @7 :Event;
    u8 @8 :Void; u9 @9 :Void; u10 @10 :Void; u11 @11 :Void; u12 @12 :Void; u13 @13 :Void; u14 @14 :Void; u15 @15 :Void; u16 @16 :Void;
    u17 @17 :Void; u18 @18 :Void; u19 @19 :Void; u20 @20 :Void;
    novelty @21 :Text;
  }
  colour @22 :UInt32;
}

struct Hello {
  protocol    @0 :UInt16;
  minProtocol @1 :UInt16;
  build       @2 :Text;
  instanceId  @3 :UInt64;
  f4 @4 :Text; f5 @5 :AnyPointer; f6 @6 :AnyPointer; f7 @7 :Text; f8 @8 :AnyPointer; f9 @9 :Text; f10 @10 :AnyPointer; f11 @11 :Int32;
  motto       @12 :Text;
}

struct Event { kind @0 :UInt16; model @1 :Text; }
