package embedded

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/skeinmq/skein/internal/logtest"
)

// TestSpace writes ten times the quota over the same keys: that only ever costs a wait. Then it fills the quota with keys: it is
// refused, and says what can be done. It goes on when keys are deleted, and after a start with a greater quota.
func TestSpace(t *testing.T) {
	dir, log := t.TempDir(), new(logtest.Output)
	start := func(quota int64) *Server {
		t.Helper()
		s, err := Start(t.Context(), Config{Dir: dir, NoFsync: true, Quota: quota, Logger: slog.New(slog.NewTextHandler(log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := start(QuotaLeast)
	defer func() { s.Close() }()
	big := strings.Repeat("x", 100<<10)
	eventually := func(what string, do func() error) {
		t.Helper()
		for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) { // etcd is polled
			err := do()
			if err == nil {
				return
			}
			if !errors.Is(err, rpctypes.ErrNoSpace) || time.Now().After(end) {
				t.Fatalf("%s: %v\n%s", what, err, log.String())
			}
		}
	}
	put := func(key string) error { _, err := s.Client().Put(t.Context(), key, big); return err }
	for i := range 10 * QuotaLeast / len(big) {
		eventually("write over old values", func() error { return put(fmt.Sprint("k", i%8)) })
	}
	if strings.Contains(log.String(), "level=ERROR") {
		t.Errorf("an error although there was room:\n%s", log.String())
	}
	full := func() {
		t.Helper()
		for end := time.Now().Add(patience); !strings.Contains(log.String(), "delete topics, or restart"); { // what is old may make room once or twice
			if err := put(fmt.Sprint("fill", time.Now().UnixNano())); err != nil && !errors.Is(err, rpctypes.ErrNoSpace) || time.Now().After(end) {
				t.Fatalf("fill: %v\n%s", err, log.String())
			}
		}
		if err := put("more"); !errors.Is(err, rpctypes.ErrNoSpace) {
			t.Errorf("full, and a write: %v", err)
		}
	}
	full()
	begun := time.Now()
	got, err := s.Client().Get(t.Context(), "fill", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range got.Kvs {
		if _, err := s.Client().Delete(t.Context(), string(kv.Key)); err != nil {
			t.Fatal(err)
		}
	}
	eventually("after a delete", func() error { return put("more") })
	t.Logf("it has room %v after keys were deleted", time.Since(begun))

	log.Reset()
	full()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = start(16 * QuotaLeast) // etcd looks at its size every 100 ms: it is over by then
	eventually("with a greater quota", func() error { return put("more") })
}
