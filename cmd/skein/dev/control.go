package dev

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// socketName is the control socket's name in the cluster's directory.
const socketName = "dev.sock"

// SocketPath is where the supervisor of a directory listens.
func SocketPath(dir string) string { return filepath.Join(dir, socketName) }

// maxCommand bounds a command line.
const maxCommand = 4096

// ListenControl opens the socket of the directory. It refuses where another supervisor answers there: ask before any child is
// started on that one's directories.
func (s *Supervisor) ListenControl() (net.Listener, error) {
	path := SocketPath(s.cfg.Dir)
	if err := os.MkdirAll(s.cfg.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return nil, fmt.Errorf("control socket: another skein dev runs on %s", s.cfg.Dir)
	}
	_ = os.Remove(path) // left behind by one that was killed
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return ln, nil
}

// ServeControl answers commands on the socket until ctx ends: one line in, "ok" or "error: …" and the command's text out, then
// the end of the stream. It closes the socket.
func (s *Supervisor) ServeControl(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	for {
		c, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		} else if err != nil {
			return fmt.Errorf("control socket: %w", err)
		}
		wg.Go(func() { s.serveControl(ctx, c) })
	}
}

func (s *Supervisor) serveControl(ctx context.Context, c net.Conn) {
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.SetReadDeadline(time.Now()) })
	defer stop()
	line, err := bufio.NewReader(io.LimitReader(c, maxCommand)).ReadString('\n')
	if err != nil {
		return
	}
	text, err := s.Do(ctx, strings.TrimSpace(line))
	if err != nil {
		fmt.Fprintf(c, "error: %s\n", strings.ReplaceAll(err.Error(), "\n", "; "))
	} else {
		fmt.Fprintln(c, "ok")
	}
	if text != "" {
		fmt.Fprintln(c, text)
	}
}

// Control sends one command to the supervisor of a directory and returns its text when it is done.
func Control(ctx context.Context, dir, line string) (string, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", SocketPath(dir))
	if err != nil {
		return "", fmt.Errorf("reach skein dev on %s: %w", dir, err)
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	if _, err := fmt.Fprintln(c, line); err != nil {
		return "", err
	}
	all, err := io.ReadAll(c)
	if err != nil {
		return "", errors.Join(err, context.Cause(ctx))
	}
	head, text, _ := strings.Cut(string(all), "\n")
	text = strings.TrimSuffix(text, "\n")
	if problem, ok := strings.CutPrefix(head, "error: "); ok {
		return text, errors.New(problem)
	}
	if head != "ok" {
		return text, errors.New("skein dev ended before it answered")
	}
	return text, nil
}

// ReadCommands runs the lines of a terminal or a script, one after the other, until it ends.
func (s *Supervisor) ReadCommands(ctx context.Context, in io.Reader) {
	lines := bufio.NewScanner(io.Reader(in))
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" {
			continue
		}
		text, err := s.Do(ctx, line)
		if text != "" {
			s.printf("%s\n", text)
		}
		if err != nil {
			s.printf("error: %v\n", err)
		}
		if ctx.Err() != nil {
			return
		}
	}
}
