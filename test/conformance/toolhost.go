package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// toolHost is the JVM in which the command-line tools run, one after the other.
type toolHost struct {
	in    *installer
	stage *stage
	r     *runner
	jars  string
}

func (t *toolHost) close() {
	if t.r != nil {
		t.r.end()
		t.r = nil
	}
}

func (t *toolHost) start(ctx context.Context) error {
	if t.r != nil {
		return nil
	}
	jars, err := t.in.toolJars(ctx)
	if err != nil {
		return err
	}
	classpath := filepath.Join(jars, "*")
	classes, err := t.in.compile(ctx, filepath.Join(t.in.src, "java", "ToolHost.java"), classpath, filepath.Join(t.in.cache, "java"), "tools")
	if err != nil {
		return err
	}
	t.r, err = startRunner(ctx, append(append([]string{"java"}, javaFlags...), "-cp", classes+":"+classpath, "ToolHost"))
	return err
}

// toolRun is one case of a tool: it calls the tool, and checks each call's exit code and output.
type toolRun struct {
	ctx   context.Context
	host  *toolHost
	stage *stage
	addr  string // where the tool connects
	limit time.Duration
	topic string // a name of its own; the case creates the topic if it wants one
	log   *strings.Builder
	seen  string // standard output of the last call
}

type toolAnswer struct {
	Exit int    `json:"exit"`
	Out  string `json:"out"`
	Err  string `json:"err"`
}

// call runs a tool with --bootstrap-server and wants exit code 0.
func (t *toolRun) call(class string, args ...string) error {
	return t.callWith(class, "", 0, append([]string{"--bootstrap-server", t.addr}, args...)...)
}

func (t *toolRun) callWith(class, stdin string, wantExit int, args ...string) error {
	if !strings.HasPrefix(class, "kafka.") {
		class = "org.apache.kafka.tools." + class
	}
	request, err := json.Marshal(map[string]any{"class": class, "args": args, "stdin": stdin})
	if err != nil {
		return err
	}
	fmt.Fprintf(t.log, "$ %s %s\n", class, strings.Join(args, " "))
	if _, err := io.WriteString(t.host.r.stdin, string(request)+"\n"); err != nil {
		return fmt.Errorf("call tool: %w", err)
	}
	f, err := t.host.r.next(t.ctx, t.limit, "done")
	if err != nil {
		t.host.r.kill()
		fmt.Fprintf(t.log, "%s\n", t.host.r.log.take())
		t.host.r = nil
		return fmt.Errorf("%s %s: %w", class, strings.Join(args, " "), err)
	}
	var a toolAnswer
	if err := json.Unmarshal([]byte(strings.Join(f, "\t")), &a); err != nil {
		return fmt.Errorf("read answer of tool: %w", err)
	}
	fmt.Fprintf(t.log, "exit %d\n%s%s\n", a.Exit, a.Out, a.Err)
	t.seen = a.Out
	if a.Exit != wantExit {
		return fmt.Errorf("%s %s: exit code %d, want %d: %s %s", class, strings.Join(args, " "), a.Exit, wantExit, a.Out, a.Err)
	}
	return nil
}

// want checks that the last call's output matches each of the expressions.
func (t *toolRun) want(expressions ...string) error {
	for _, e := range expressions {
		if !regexp.MustCompile(`(?m)` + e).MatchString(t.seen) {
			return fmt.Errorf("output has no %q: %s", e, t.seen)
		}
	}
	return nil
}

func (t *toolRun) wantNot(expression string) error {
	if regexp.MustCompile(`(?m)` + expression).MatchString(t.seen) {
		return fmt.Errorf("output has %q: %s", expression, t.seen)
	}
	return nil
}

// steps runs functions until one fails.
func steps(fs ...func() error) error {
	for _, f := range fs {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

// runTool runs one tool's case and adds its line.
func (m *matrix) runTool(ctx context.Context, c client) {
	if !m.chosen.cases["tool"] || m.brokers < c.tool.brokers {
		return
	}
	began := time.Now()
	out := result{Client: c.name, Version: "4.3.0", Case: "tool", Status: "pass", tool: true}
	run := &toolRun{host: m.tools, stage: m.stage, addr: m.stage.clientAddr(c), limit: m.o.timeout, topic: m.stage.run + "-" + m.stage.round + c.name, log: &strings.Builder{}}
	var cancel context.CancelFunc
	run.ctx, cancel = context.WithTimeout(ctx, m.o.timeout)
	defer cancel()
	err := m.tools.start(ctx)
	if err == nil {
		err = c.tool.run(run)
	}
	if err != nil {
		out.Status, out.Text = "fail", err.Error()
		out.Log = filepath.Join(m.o.logs, c.name+".log")
		saveLog(out.Log, []byte(err.Error()+"\n\n"+run.log.String()))
	}
	out.Seconds = time.Since(began).Seconds()
	m.add(out)
}
