//go:build llama

package grammar

/*
#include <stdlib.h>
#include "llguidance_bridge.h"
*/
import "C"

import (
	"sync"
)

// memoryLimitBytes is for all vocabularies and grammars together; everyday ones take a few MiB each. Tests set less.
var memoryLimitBytes int64 = 2 << 30

// setMemoryLimit sets the last line of defence: a grammar that takes this much was made to do harm, and nothing inside
// the library stops it. The process ends, the running requests are replayed, and one that does it again is refused
// (docs/restarts.md).
var setMemoryLimit = sync.OnceFunc(func() { limitMemory(memoryLimitBytes) })

func limitMemory(bytes int64) { C.tandem_llguidance_bound(C.size_t(bytes)) }

// UsedBytes is the memory of all vocabularies and grammars.
func UsedBytes() int64 { return int64(C.tandem_llguidance_used()) }
