// Package limit decides how many requests a key or an address may send: a rate such as 5/minute, the GCRA buckets that
// count by it (gcra.go), the headers that report the limit to a client, and the address under which a client without a
// key is counted. It knows no HTTP library.
//
// LocalLimiter counts for this process alone. Its callers pass the time: it reads no clock, never sleeps and starts no
// goroutine. SharedLimiter counts in a Redis or Valkey server as well, for all processes that use that server, by the
// server's clock.
package limit
