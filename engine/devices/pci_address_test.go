package devices

import "testing"

func TestPCIAddresses(t *testing.T) {
	want, _ := parsePCIAddress("0000:3b:00.0")
	for _, same := range []string{"00000000:3B:00.0", " 0:3b:0.0\n", "0000:3b:00"} {
		if got, ok := parsePCIAddress(same); !ok || got != want {
			t.Errorf("%q is %+v, %v", same, got, ok)
		}
	}
	for _, other := range []string{"0000:3c:00.0", "0001:3b:00.0", "0000:3b:01.0"} {
		if got, ok := parsePCIAddress(other); !ok || got == want {
			t.Errorf("%q is %+v, %v", other, got, ok)
		}
	}
	for _, bad := range []string{"", "3b:00.0", "0000:3b:00:0", "0000:zz:00.0", "GPU-8f", "0000::00.0", "123456789:3b:00.0"} {
		if got, ok := parsePCIAddress(bad); ok {
			t.Errorf("%q is %+v", bad, got)
		}
	}
}
