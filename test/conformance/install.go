package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// installer fetches clients with the package managers of their languages, each
// once, into one folder for each set of pinned versions.
type installer struct {
	cache string // where everything is installed
	self  string // this program's file
	src   string // test/conformance of the source tree
	once  sync.Map
}

// locate finds the programs in java/, python/ and js/: below the working
// directory, or where this program's source was when it was built.
func (in *installer) locate() error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own file: %w", err)
	}
	in.self = self
	_, file, _, _ := runtime.Caller(0)
	for _, dir := range []string{"test/conformance", ".", filepath.Dir(file)} {
		if _, err := os.Stat(filepath.Join(dir, "java", "pom.xml")); err == nil {
			in.src, err = filepath.Abs(dir)
			return err
		}
	}
	return errors.New("find test/conformance: run it from the repository's root")
}

// all installs for several clients and reports each that cannot be installed.
func (in *installer) all(ctx context.Context, list []client) (int, error) {
	code := 0
	tools := client{name: "Apache Kafka's tools", install: func(ctx context.Context, in *installer) ([]string, error) {
		_, err := in.toolJars(ctx)
		return nil, err
	}}
	for _, c := range append(slices.Clone(list), tools) {
		if c.install == nil {
			continue
		}
		if _, err := c.install(ctx, in); err != nil {
			code = 1
			fmt.Printf("%s: %v\n", c.name, err)
		} else {
			fmt.Printf("%s: installed\n", c.name)
		}
	}
	return code, nil
}

// step runs an installation once a process; done is a file that exists when a
// former process has finished it.
func (in *installer) step(done string, f func() error) error {
	run, _ := in.once.LoadOrStore(done, sync.OnceValue(func() error {
		if _, err := os.Stat(done); err == nil {
			return nil
		}
		if err := os.MkdirAll(filepath.Dir(done), 0o755); err != nil {
			return err
		}
		lock, err := os.Create(done + ".lock")
		if err != nil {
			return err
		}
		defer lock.Close() // which unlocks it
		if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
			return fmt.Errorf("lock %s: %w", lock.Name(), err)
		}
		if _, err := os.Stat(done); err == nil {
			return nil // another run of this program was quicker
		}
		if err := f(); err != nil {
			return err
		}
		return os.WriteFile(done, nil, 0o644)
	}))
	return run.(func() error)()
}

func command(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if out, err := cmd.CombinedOutput(); err != nil {
		text := strings.TrimSpace(string(out))
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, text[max(0, len(text)-1500):])
	}
	return nil
}

// need looks for a program and installs its Debian package if it is not there.
func (in *installer) need(ctx context.Context, program, pkg string) error {
	run, _ := in.once.LoadOrStore("apt "+program, sync.OnceValue(func() error {
		if _, err := exec.LookPath(program); err == nil {
			return nil
		}
		if _, err := exec.LookPath("apt-get"); err != nil || os.Geteuid() != 0 {
			return fmt.Errorf("install %s: the program %s is missing, and installing it needs root and apt-get", pkg, program)
		}
		aptMu.Lock()
		defer aptMu.Unlock()
		if err := command(ctx, "", "apt-get", "update", "-qq"); err != nil {
			return err
		}
		return command(ctx, "", "apt-get", "install", "-y", "-qq", "--no-install-recommends", pkg)
	}))
	return run.(func() error)()
}

var aptMu sync.Mutex // apt-get refuses to run twice at the same time

// digest names a folder by the content of the files that decide what goes in.
func digest(extra string, files ...string) (string, error) {
	h := sha256.New()
	h.Write([]byte(extra))
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			return "", err
		}
		h.Write(data)
	}
	return fmt.Sprintf("%x", h.Sum(nil))[:12], nil
}

func (in *installer) kcat(ctx context.Context) ([]string, error) {
	return []string{in.self, "client", "kcat"}, in.need(ctx, "kcat", "kcat")
}

// javaFlags keep a client's JVM small and quick to start.
var javaFlags = []string{"-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=info",
	"-Dorg.slf4j.simpleLogger.showDateTime=true", "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS"}

func (in *installer) jdk(ctx context.Context) error {
	return errors.Join(in.need(ctx, "javac", "default-jdk-headless"), in.need(ctx, "mvn", "maven"))
}

func (in *installer) java(ctx context.Context, version string) ([]string, error) {
	return in.javaClasses(ctx, version, "Conformance")
}

// javaClasses is the command of one of the programs in java/ with a version of the client.
func (in *installer) javaClasses(ctx context.Context, version, program string) ([]string, error) {
	if err := in.jdk(ctx); err != nil {
		return nil, err
	}
	pom, src := filepath.Join(in.src, "java", "pom.xml"), filepath.Join(in.src, "java", program+".java")
	id, err := digest(version, pom)
	if err != nil {
		return nil, err
	}
	jars := filepath.Join(in.cache, "java", version+"-"+id)
	err = in.step(filepath.Join(jars, "done"), func() error {
		return command(ctx, "", "mvn", "-q", "-B", "-f", pom, "-Dclient.version="+version, "dependency:copy-dependencies", "-DoutputDirectory="+jars)
	})
	if err != nil {
		return nil, err
	}
	classes, err := in.compile(ctx, src, filepath.Join(jars, "*"), filepath.Join(in.cache, "java"), version)
	return append(append([]string{"java"}, javaFlags...), "-cp", classes+":"+filepath.Join(jars, "*"), program), err
}

func (in *installer) compile(ctx context.Context, src, classpath, dir, label string) (string, error) {
	id, err := digest(classpath, src)
	if err != nil {
		return "", err
	}
	classes := filepath.Join(dir, "classes-"+label+"-"+id)
	return classes, in.step(filepath.Join(classes, "done"), func() error {
		return command(ctx, "", "javac", "-nowarn", "-cp", classpath, "-d", classes, src)
	})
}

// toolJars fetches the jars of Apache Kafka's command-line tools.
func (in *installer) toolJars(ctx context.Context) (string, error) {
	if err := in.jdk(ctx); err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, in.peer(), "jars").Output()
	if err != nil {
		return "", fmt.Errorf("fetch tools: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

func (in *installer) peer() string { return filepath.Join(in.src, "..", "peer", "kafka") }

func (in *installer) python(ctx context.Context, name string) ([]string, error) {
	requirements := filepath.Join(in.src, "python", "requirements.txt")
	id, err := digest("", requirements)
	if err != nil {
		return nil, err
	}
	venv := filepath.Join(in.cache, "python-"+id)
	python := filepath.Join(venv, "bin", "python")
	err = in.step(filepath.Join(venv, "done"), func() error {
		if err := in.need(ctx, "python3", "python3"); err != nil {
			return err
		}
		if err := command(ctx, "", "python3", "-m", "venv", venv); err != nil {
			// Debian keeps venv in a package of its own.
			return errors.Join(err, errors.New("make venv: is python3-venv installed?"))
		}
		return command(ctx, "", python, "-m", "pip", "install", "-q", "-r", requirements)
	})
	return []string{python, "-u", filepath.Join(in.src, "python", "serve.py"), name}, err
}

func (in *installer) node(ctx context.Context) ([]string, error) {
	manifest := filepath.Join(in.src, "js", "package.json")
	id, err := digest("", manifest)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(in.cache, "js-"+id)
	err = in.step(filepath.Join(dir, "done"), func() error {
		if err := errors.Join(in.need(ctx, "node", "nodejs"), in.need(ctx, "npm", "npm")); err != nil {
			return err
		}
		data, err := os.ReadFile(manifest)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "package.json"), data, 0o644); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return command(ctx, dir, "npm", "install", "--no-audit", "--no-fund", "--no-package-lock")
	})
	return []string{"env", "NODE_PATH=" + filepath.Join(dir, "node_modules"), "node", filepath.Join(in.src, "js", "serve.js")}, err
}
