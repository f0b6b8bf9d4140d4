package inflight

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tandem/proxy/api"
)

// An engine that is restarted under a call isn't noticed by its client either.
func TestCallIsMadeAgainAtTheNextEngine(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		f.callError = errors.New("engine is disconnected")
		type outcome struct {
			tokens []int32
			err    *api.Error
		}
		result := make(chan outcome, 1)
		go func() {
			tokens, err := table.Tokenize(t.Context(), ModelCall{Model: "demo"}, "four", true)
			result <- outcome{tokens, err}
		}()
		synctest.Wait()
		table.lose(f)
		synctest.Wait()
		table.attach(LastExit{})
		if got := <-result; got.err != nil || len(got.tokens) != 4 {
			t.Errorf("%+v", got)
		}
	})
}

// While engines are exchanged there are two; the older one serves when the newer one is lost.
func TestCallIsMadeAgainAtTheEngineThatIsLeft(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		table.attach(LastExit{})
		f := table.attach(LastExit{})
		f.callError = errors.New("engine is disconnected")
		result := make(chan *api.Error, 1)
		began := time.Now()
		go func() {
			_, err := table.Tokenize(t.Context(), ModelCall{Model: "demo"}, "four", true)
			result <- err
		}()
		synctest.Wait()
		table.lose(f)
		if err := <-result; err != nil || time.Since(began) != 0 {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}

// A call that may have ended two engines isn't tried at a third one.
func TestCallThatEndsEnginesIsGivenUp(t *testing.T) {
	inBubble(t, Options{EngineWait: time.Hour}, func(t *testing.T, table *tableTest) {
		result := make(chan *api.Error, 1)
		go func() {
			_, err := table.Render(t.Context(), ModelCall{Model: "demo"}, &api.Request{Prompt: "x"})
			result <- err
		}()
		for range maxCallAttempts {
			f := table.attachEngine(&fakeEngine{callError: errors.New("engine is disconnected")}, LastExit{})
			synctest.Wait()
			table.lose(f)
			synctest.Wait()
		}
		select {
		case err := <-result:
			if err == nil || err.Type != api.TypeEngineUnavailable {
				t.Errorf("got %v", err)
			}
		default:
			t.Fatal("the call still waits for another engine")
		}
	})
}

func TestCallsWaitForAnEngineOnlySoLong(t *testing.T) {
	inBubble(t, Options{EngineWait: 3 * time.Second}, func(t *testing.T, table *tableTest) {
		began := time.Now()
		_, err := table.Detokenize(t.Context(), ModelCall{}, []int32{1})
		if err == nil || err.Type != api.TypeEngineUnavailable || time.Since(began) != 3*time.Second || err.RetryAfter == 0 {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}

func TestErrorsOfCalls(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		call := func(ctx context.Context, c ModelCall) api.Type {
			if _, err := table.Render(ctx, c, &api.Request{Prompt: "x"}); err != nil {
				return err.Type
			}
			return ""
		}
		expect := func(got, want api.Type) {
			t.Helper()
			if got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		expect(call(t.Context(), ModelCall{}), "")
		expect(call(t.Context(), ModelCall{Model: "nobody/has-it"}), api.TypeModelNotFound)
		expect(call(t.Context(), ModelCall{Model: "demo", Version: "v9"}), api.TypeVersionNotFound)
		expect(call(t.Context(), ModelCall{Model: "demo", Models: []string{"other"}}), api.TypeForbidden)
		f.callError = &EngineFailure{Code: "context_length_exceeded", Text: "too long"}
		expect(call(t.Context(), ModelCall{}), api.TypeContextExceeded)
		f.callError = &EngineFailure{Code: "something new", Text: "no"}
		expect(call(t.Context(), ModelCall{}), api.TypeInternal)
		f.callError = errors.New("engine is disconnected")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		expect(call(ctx, ModelCall{}), api.TypeDeadlineExceeded)
		gone, leave := context.WithCancel(t.Context())
		leave()
		expect(call(gone, ModelCall{}), api.TypeCancelled)
	})
}

// A request that is only rendered blames the field that its client sent, as one that is answered does.
func TestErrorsOfCallsBlameTheClientsField(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		for _, code := range []api.Type{api.TypeInvalidRequest, api.TypeGrammarTooComplex} {
			f.callError = &EngineFailure{Code: string(code), Text: "json_schema can't be followed", Param: "json_schema"}
			for sent, want := range map[string]string{"": "json_schema", "response_format": "response_format"} {
				_, err := table.Render(t.Context(), ModelCall{}, &api.Request{Prompt: "x", JSONSchema: []byte(`{}`), SchemaField: sent})
				if err == nil || err.Type != code || err.Param != want || !strings.HasPrefix(err.Message, want+" ") {
					t.Errorf("sent as %q: %+v", sent, err)
				}
			}
		}
	})
}

// A call may take longer than anybody waits for an engine: it is the next one that is waited for.
func TestLongCallIsMadeAgainAtTheNextEngine(t *testing.T) {
	inBubble(t, Options{EngineWait: 10 * time.Second}, func(t *testing.T, table *tableTest) {
		gate := make(chan struct{})
		f := table.attachEngine(&fakeEngine{callGate: gate, callError: errors.New("engine is disconnected")}, LastExit{})
		result := make(chan *api.Error, 1)
		go func() {
			_, err := table.Tokenize(t.Context(), ModelCall{Model: "demo"}, "four", true)
			result <- err
		}()
		time.Sleep(15 * time.Second)
		table.lose(f)
		close(gate)
		time.Sleep(time.Second)
		table.attach(LastExit{})
		if err := <-result; err != nil {
			t.Errorf("got %v", err)
		}
	})
}
