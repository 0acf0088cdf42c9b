package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// TestDemoteTheAnswering: a broker whose own vote is taken rebuilds itself; the command asks until it has the result, and says
// that two voters are worse than one.
func TestDemoteTheAnswering(t *testing.T) {
	var asked atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		switch asked.Add(1) {
		case 1: // it ends
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				conn.Close()
			}
		case 2:
			http.Error(w, "this broker is starting", http.StatusServiceUnavailable)
		default:
			w.Write([]byte(`[{"broker":1,"address":"a:1","voter":false},{"broker":2,"address":"b:1","voter":true},{"broker":3,"address":"c:1","voter":true}]`))
		}
	}))
	defer srv.Close()
	run := func(verb string) (string, string, error) {
		cmd := clusterCommand()
		var out, warnings bytes.Buffer
		cmd.SetOut(&out)
		cmd.SetErr(&warnings)
		cmd.SetArgs([]string{"voters", verb, "1", "--http", strings.TrimPrefix(srv.URL, "http://")})
		err := cmd.Execute()
		return out.String(), warnings.String(), err
	}
	out, warnings, err := run("demote")
	if err != nil || !strings.Contains(out, "b:1") {
		t.Errorf("demote: %q, %v", out, err)
	}
	if !strings.Contains(warnings, "2 brokers vote") || !strings.Contains(warnings, "voters add") {
		t.Errorf("it warns %q", warnings)
	}
	asked.Store(1) // it is starting, and was not asked before
	if out, _, err := run("demote"); err == nil || !strings.Contains(err.Error(), "is starting") {
		t.Errorf("demote at a broker that starts: %q, %v", out, err)
	}
}
