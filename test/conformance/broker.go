package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// broker is what the clients run against: found, or started and then stopped here.
type broker struct {
	name      string
	bootstrap string
	stop      func()
	// faults ends what is done to the brokers while the cases run, and says how many there were; nil: nothing is.
	faults func() (int, error)
}

func startBroker(ctx context.Context, o options, in *installer) (*broker, error) {
	switch {
	case o.bootstrap != "":
		return &broker{name: o.bootstrap, bootstrap: o.bootstrap, stop: func() {}}, nil
	case o.kafka:
		return startKafka(ctx, in, o.brokers)
	case o.brokers > 1:
		return startCluster(ctx, o)
	}
	return startSkein(ctx, o)
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find free port: %w", err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}

func startKafka(ctx context.Context, in *installer, brokers int) (*broker, error) {
	if err := in.jdk(ctx); err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	// The broker outlives the script, so its output must not be a pipe that we wait for.
	cmd := exec.CommandContext(ctx, in.peer(), "start", "-p", port, "-n", strconv.Itoa(brokers))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("start kafka: %w", err)
	}
	stop := func() { exec.Command(in.peer(), "stop", "-p", port).Run() }
	first, _, _ := strings.Cut(strings.TrimSpace(string(out)), ",")
	return &broker{name: fmt.Sprintf("Apache Kafka 4.3.0, %d broker(s)", brokers), bootstrap: first, stop: stop}, nil
}

// startSkein starts the broker under test and waits for its ready line.
func startSkein(ctx context.Context, o options) (*broker, error) {
	data, err := os.MkdirTemp("", "skein-conformance-")
	if err != nil {
		return nil, fmt.Errorf("make data folder: %w", err)
	}
	b, err := startSkeinIn(ctx, o, data)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(data))
	}
	return b, nil
}

func startSkeinIn(ctx context.Context, o options, data string) (*broker, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	httpPort, err := freePort()
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(o.logs, "broker.log"))
	if err != nil {
		return nil, fmt.Errorf("make broker log: %w", err)
	}
	defer log.Close() // the child holds its own descriptor
	listen := "127.0.0.1:" + port
	cmd := exec.Command(o.skein, "serve", "--data", data, "--listen", listen, "--http", "127.0.0.1:"+httpPort)
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // ^C goes to us; we stop the broker when the cases have ended
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", o.skein, err)
	}
	ready, ended := make(chan string, 1), make(chan error, 1)
	go func() {
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			if strings.HasPrefix(lines.Text(), "ready ") {
				select {
				case ready <- lines.Text():
				default:
				}
			}
		}
		ended <- cmd.Wait()
	}()
	stop := func() {
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			fmt.Fprintln(os.Stderr, "conformance: broker did not end within 20 s of SIGTERM, killing it")
			cmd.Process.Kill()
			<-ended
		}
		os.RemoveAll(data)
	}
	select {
	case <-ready:
		return &broker{name: "Skein (" + o.skein + ")", bootstrap: listen, stop: stop}, nil
	case err := <-ended:
		text, _ := os.ReadFile(log.Name())
		return nil, fmt.Errorf("start %s: it ended before it was ready: %v: %s", o.skein, err, text[max(0, len(text)-2000):])
	case <-time.After(30 * time.Second):
		stop()
		return nil, fmt.Errorf("start %s: no ready line after 30 s", o.skein)
	case <-ctx.Done():
		stop()
		return nil, context.Cause(ctx)
	}
}
