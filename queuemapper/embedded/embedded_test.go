package embedded

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

func TestStartWriteRestart(t *testing.T) {
	dir := t.TempDir()
	ctx := t.Context()
	for i := range 3 {
		begin := time.Now()
		s, err := Start(ctx, Config{Dir: dir, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
		if err != nil {
			t.Fatal(err)
		}
		ready := time.Since(begin)
		got, err := s.Client().Get(ctx, "k")
		if err != nil {
			t.Fatal(err)
		}
		if int(got.Count) != min(i, 1) {
			t.Errorf("start %d: %d keys, want %d", i, got.Count, min(i, 1))
		}
		if _, err := s.Client().Put(ctx, "k", "v"); err != nil {
			t.Fatal(err)
		}
		// An open watch must not hold Close up.
		_ = s.Client().Watch(context.Background(), "k", clientv3.WithPrefix())
		begin = time.Now()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		t.Logf("start %d: ready in %v, closed in %v", i, ready, time.Since(begin))
	}
}

func TestStartRefusesNoDirectory(t *testing.T) {
	if _, err := Start(t.Context(), Config{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}); err == nil {
		t.Error("started without a directory")
	}
}

func TestListen(t *testing.T) {
	s, err := Start(t.Context(), Config{Dir: t.TempDir(), Listen: "127.0.0.1:0", NoFsync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{s.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Put(t.Context(), "k", "v"); err != nil {
		t.Error(err)
	}
}

// TestFailure: what etcd does not survive is reported, and does not hold Close up.
func TestFailure(t *testing.T) {
	s, err := Start(t.Context(), Config{Dir: t.TempDir(), NoFsync: true, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.Failed():
		t.Fatal("failed at once")
	default:
	}
	lost := errors.New("input/output error")
	go s.etcd.Logger().Fatal("failed to commit tx", zap.Error(lost))
	<-s.Failed()
	if err := s.Failure(); !errors.Is(err, ErrFailed) || !strings.Contains(err.Error(), "failed to commit tx: input/output error") {
		t.Errorf("failure: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
