package kconfig

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"
)

// Check finds every problem of a set of configs of one kind: names that do not exist,
// values that do not parse or are out of range, values that do not go together. The
// errors are *UnknownError, *ValueError and *ConflictError, ordered by name; none means
// that all is well. Layers are what the configs fall back on.
func Check(k Kind, configs map[string]string, under Layers) []error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(configs)) {
		d := Find(k, name)
		if d == nil {
			errs = append(errs, &UnknownError{k, name})
			continue
		}
		if _, err := d.Parse(configs[name]); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return errs
	}
	under.Entity = configs
	switch k {
	case KindTopic:
		return checkTopic(configs, under)
	case KindGroup:
		return checkGroup(configs, under)
	case KindClientMetrics:
		return checkMatch(configs["match"])
	}
	return nil
}

func checkTopic(configs map[string]string, l Layers) (errs []error) {
	if low, high := l.long(KindTopic, "min.compaction.lag.ms"), l.long(KindTopic, "max.compaction.lag.ms"); low > high {
		errs = append(errs, &ConflictError{fmt.Sprintf("conflict topic config setting min.compaction.lag.ms (%d) > max.compaction.lag.ms (%d)", low, high)})
	}
	if strings.EqualFold(strings.TrimSpace(configs["remote.storage.enable"]), "true") {
		errs = append(errs, &ConflictError{"Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage."})
	}
	return errs
}

// checkGroup compares a group's configs with the bounds that the broker's configs set.
func checkGroup(configs map[string]string, l Layers) (errs []error) {
	for _, name := range slices.Sorted(maps.Keys(configs)) {
		family, rest, _ := strings.Cut(name, ".")
		d := Find(KindGroup, name)
		if d.Type != Int {
			continue
		}
		v := l.long(KindGroup, name)
		if low := "group." + family + ".min." + rest; Find(KindBroker, low) != nil && v < l.long(KindBroker, low) {
			errs = append(errs, &ConflictError{name + " must be greater than or equal to " + low})
		}
		high := "group." + family + ".max." + strings.TrimPrefix(rest, "num.")
		if Find(KindBroker, high) != nil && v > l.long(KindBroker, high) {
			errs = append(errs, &ConflictError{name + " must be less than or equal to " + high})
		}
	}
	return errs
}

var matchKeys = []string{"client_instance_id", "client_id", "client_software_name", "client_software_version", "client_source_address", "client_source_port"}

func checkMatch(match string) (errs []error) {
	for _, e := range splitList(match) {
		name, pattern, ok := strings.Cut(e, "=")
		_, err := regexp.Compile(pattern)
		if !ok || err != nil || !slices.Contains(matchKeys, strings.TrimSpace(name)) {
			errs = append(errs, &ConflictError{"Illegal client matching pattern: " + e})
		}
	}
	return errs
}

// Validate checks a broker's own configs, as they come from a file, flags and the
// environment. The error joins every problem, and each names its key.
func Validate(static map[string]string) error {
	errs := Check(KindBroker, static, Layers{})
	if len(errs) == 0 {
		errs = checkBroker(Layers{Static: static})
	}
	return errors.Join(errs...)
}

// CheckDynamic checks the dynamic configs of a broker, or of all of them (cluster), as
// they would be after a change; changed are the names that the change sets.
func CheckDynamic(cluster bool, changed []string, after Layers) []error {
	var fixed, perBroker []string
	var errs []error
	for _, name := range changed {
		d := Find(KindBroker, name)
		switch {
		case d == nil:
			errs = append(errs, &UnknownError{KindBroker, name})
		case !d.Dynamic():
			fixed = append(fixed, name)
		case cluster && d.Update == PerBroker:
			perBroker = append(perBroker, name)
		}
	}
	if len(fixed) > 0 {
		errs = append(errs, &ConflictError{"Cannot update these configs dynamically: [" + strings.Join(fixed, ", ") + "]"})
	}
	if len(perBroker) > 0 {
		errs = append(errs, &ConflictError{"Cannot update these configs at default cluster level, broker id must be specified: [" + strings.Join(perBroker, ", ") + "]"})
	}
	if len(errs) > 0 {
		return errs
	}
	set := after.Broker
	if cluster {
		set = after.Default
	}
	if errs = Check(KindBroker, set, Layers{}); len(errs) > 0 {
		return errs
	}
	return checkBroker(after)
}

// checkBroker finds values of different keys that do not go together.
func checkBroker(l Layers) (errs []error) {
	conflict := func(format string, args ...any) {
		errs = append(errs, &ConflictError{fmt.Sprintf(format, args...)})
	}
	if v := l.get("log.retention.ms"); v != nil && v.Int == 0 {
		conflict("requirement failed: log.retention.ms must be unlimited (-1) or, greater than or equal to 1")
	}
	if v := l.get("log.retention.minutes"); v != nil && v.Int == 0 {
		conflict("requirement failed: log.retention.minutes must be unlimited (-1) or, greater than or equal to 1")
	}
	if v := l.get("log.retention.hours"); v != nil && v.Int == 0 {
		conflict("requirement failed: log.retention.hours must be unlimited (-1) or, greater than or equal to 1")
	}
	if v := l.get("log.roll.ms"); v != nil && v.Int < 1 {
		conflict("requirement failed: log.roll.ms must be greater than or equal to 1")
	}
	if v := l.get("log.roll.jitter.ms"); v != nil && v.Int < 0 {
		conflict("requirement failed: log.roll.jitter.ms must be greater than or equal to 0")
	}
	if l.long(KindBroker, "max.connections.per.ip") == 0 && l.get("max.connections.per.ip.overrides").Text == "" {
		conflict("requirement failed: max.connections.per.ip can be set to zero only if max.connections.per.ip.overrides property is set.")
	}
	for _, name := range []string{"max.connections", "max.connection.creation.rate"} {
		if l.long(KindBroker, name) == 0 {
			conflict("Invalid %s 0", name) // nobody could ever connect again to undo it
		}
	}
	if l.Static["broker.id"] != "" && l.Static["node.id"] != "" {
		if b, n := l.long(KindBroker, "broker.id"), l.long(KindBroker, "node.id"); b != n && b != -1 {
			conflict("broker.id (%d) and node.id (%d) must agree", b, n)
		}
	}
	for _, pair := range [][2]string{
		{"group.min.session.timeout.ms", "group.max.session.timeout.ms"},
		{"group.consumer.min.session.timeout.ms", "group.consumer.max.session.timeout.ms"},
		{"group.consumer.min.heartbeat.interval.ms", "group.consumer.max.heartbeat.interval.ms"},
		{"log.cleaner.min.compaction.lag.ms", "log.cleaner.max.compaction.lag.ms"},
	} {
		if low, high := l.long(KindBroker, pair[0]), l.long(KindBroker, pair[1]); low > high {
			conflict("%s (%d) must not be greater than %s (%d)", pair[0], low, pair[1], high)
		}
	}
	if v := l.long(KindBroker, "default.replication.factor"); v < 1 || v > math.MaxInt16 {
		conflict("default.replication.factor (%d) must be between 1 and %d", v, math.MaxInt16)
	}
	return errs
}
