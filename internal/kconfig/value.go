package kconfig

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Value is a parsed value: Int for boolean (0 or 1), int, short and long; Float for
// double; Text for string, class and password; List for list.
type Value struct {
	Int   int64
	Float float64
	Text  string
	List  []string
}

// Bool is the value of a boolean config.
func (v Value) Bool() bool { return v.Int != 0 }

// ValueError says why a config's value is refused, in Kafka's words.
type ValueError struct {
	Name, Value, Reason string
	text                string // the whole text where Kafka's differs from the usual form
}

func (e *ValueError) Error() string {
	if e.text != "" {
		return e.text
	}
	return fmt.Sprintf("Invalid value %s for configuration %s: %s", e.Value, e.Name, e.Reason)
}

// UnknownError names a config that does not exist.
type UnknownError struct {
	Kind Kind
	Name string
}

func (e *UnknownError) Error() string {
	if e.Kind == KindClientMetrics {
		return "Unknown client metrics configuration: " + e.Name
	}
	return fmt.Sprintf("Unknown %s config name: %s", e.Kind, e.Name)
}

// ConflictError says which valid values do not go together.
type ConflictError struct{ Text string }

func (e *ConflictError) Error() string { return e.Text }

// Parse turns the text of a value into the value, checking type and range. The error
// is a *ValueError.
func (d *Def) Parse(s string) (Value, error) {
	v, reason := d.parseType(s)
	if d.Sensitive() {
		s = "[hidden]" // in errors
	}
	if reason != "" {
		return Value{}, &ValueError{Name: d.Name, Value: s, Reason: reason}
	}
	if d.Type == List && slices.Contains(v.List, "") {
		return Value{}, &ValueError{Name: d.Name, Value: s, Reason: "values must not be empty",
			text: "Configuration '" + d.Name + "' values must not be empty."}
	}
	if d.check != nil {
		if reason := d.check(d, v); reason != "" {
			err := &ValueError{Name: d.Name, Value: d.shown(v), Reason: reason}
			if d.Sensitive() {
				err.Value = s
			}
			if d.Kind == KindClientMetrics {
				err.text = fmt.Sprintf("Invalid value %s for %s, %s", err.Value, d.Name, reason)
			}
			return Value{}, err
		}
	}
	if d.each != nil {
		for _, e := range v.List {
			if reason := d.each(d, Value{Text: e}); reason != "" {
				return Value{}, &ValueError{Name: d.Name, Value: e, Reason: reason}
			}
		}
	}
	return v, nil
}

func (d *Def) parseType(s string) (v Value, reason string) {
	t := strings.TrimSpace(s)
	var err error
	switch d.Type {
	case Boolean:
		switch {
		case strings.EqualFold(t, "true"):
			v.Int = 1
		case !strings.EqualFold(t, "false"):
			return v, "Expected value to be either true or false"
		}
	case Short:
		v.Int, err = strconv.ParseInt(t, 10, 16)
	case Int:
		v.Int, err = strconv.ParseInt(t, 10, 32)
	case Long:
		v.Int, err = strconv.ParseInt(t, 10, 64)
	case Double:
		v.Float, err = strconv.ParseFloat(strings.TrimRight(t, "fFdD"), 64)
		if err == nil && math.IsNaN(v.Float) {
			err = strconv.ErrRange
		}
	case List:
		v.List = splitList(t)
	default:
		v.Text = t
	}
	if err != nil {
		return v, "Not a number of type " + d.Type.String()
	}
	return v, ""
}

// splitList splits at commas, trims the elements and drops repeated ones, as Kafka does.
func splitList(s string) []string {
	if strings.TrimSpace(s) == "" {
		return nil
	}
	var out []string
	for e := range strings.SplitSeq(s, ",") {
		if e = strings.TrimSpace(e); !slices.Contains(out, e) || e == "" {
			out = append(out, e)
		}
	}
	return out
}

// shown renders a parsed value as Kafka's error messages do.
func (d *Def) shown(v Value) string {
	switch d.Type {
	case Double:
		return javaDouble(v.Float)
	case List:
		return "[" + strings.Join(v.List, ", ") + "]"
	case String, Class, Password:
		return v.Text
	}
	return strconv.FormatInt(v.Int, 10)
}

// Canonical renders a value as DescribeConfigs does: lists without spaces and
// repetitions, numbers as Java prints them. A value that does not parse is left alone.
func (d *Def) Canonical(s string) string {
	v, err := d.Parse(s)
	if err != nil {
		return s
	}
	return d.text(v)
}

// text is the canonical form of a parsed value.
func (d *Def) text(v Value) string {
	switch d.Type {
	case Boolean:
		return strconv.FormatBool(v.Bool())
	case List:
		return strings.Join(v.List, ",")
	}
	return d.shown(v)
}

// javaDouble prints as Java's Double.toString: always with a fraction, and with an
// exponent outside [1e-3, 1e7).
func javaDouble(f float64) string {
	if a := math.Abs(f); a != 0 && (a < 1e-3 || a >= 1e7) {
		m, e, _ := strings.Cut(strconv.FormatFloat(f, 'E', -1, 64), "E")
		if !strings.Contains(m, ".") {
			m += ".0"
		}
		sign := ""
		if e[0] == '-' {
			sign = "-"
		}
		return m + "E" + sign + strings.TrimLeft(e[1:], "0")
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

// check looks at a parsed value; it returns Kafka's reason to refuse it, "" if it is good.
type check func(d *Def, v Value) string

func anything(*Def, Value) string  { return "" }
func anyNumber(*Def, Value) string { return "" }

// noteRefused ends the note of a config that takes nothing but its default.
const noteRefused = "; anything but the default is refused"

// onlyDefault refuses what asks for something that is not here and whose silent absence would hurt. Nothing at all is
// taken for the default of a config that has none.
func onlyDefault(why string) check {
	return func(d *Def, v Value) string {
		if t := d.text(v); t == d.Default || t == "" && d.Null {
			return ""
		}
		return why + ": it must be left at its default"
	}
}

func atLeast(low int64) check {
	return func(_ *Def, v Value) string {
		if v.Int < low {
			return fmt.Sprintf("Value must be at least %d", low)
		}
		return ""
	}
}

func between(low, high int64) check {
	return func(_ *Def, v Value) string {
		switch {
		case v.Int < low:
			return fmt.Sprintf("Value must be at least %d", low)
		case v.Int > high:
			return fmt.Sprintf("Value must be no more than %d", high)
		}
		return ""
	}
}

// oneOrBetween allows one value that stands for something, and a range.
func oneOrBetween(one, low, high int64) check {
	inRange := between(low, high)
	return func(d *Def, v Value) string {
		if v.Int == one {
			return ""
		}
		if text := inRange(d, v); text != "" {
			return fmt.Sprintf("%s, or %d", text, one)
		}
		return ""
	}
}

func pushInterval(_ *Def, v Value) string {
	if v.Int < 100 || v.Int > 3600000 {
		return "interval must be between 100 and 3600000 (1 hour)"
	}
	return ""
}

func ratio(_ *Def, v Value) string {
	switch {
	case v.Float < 0:
		return "Value must be at least 0"
	case v.Float > 1:
		return "Value must be no more than 1"
	}
	return ""
}

func gzipLevel(_ *Def, v Value) string {
	if v.Int != -1 && (v.Int < 1 || v.Int > 9) {
		return "Value must be between 1 and 9 or equal to -1"
	}
	return ""
}

func oneOf(words ...string) check {
	return func(_ *Def, v Value) string {
		if !slices.Contains(words, v.Text) {
			return "String must be one of: " + strings.Join(words, ", ")
		}
		return ""
	}
}

func oneOfFold(words ...string) check {
	return func(_ *Def, v Value) string {
		if !slices.Contains(words, strings.ToUpper(v.Text)) {
			return "String must be one of (case insensitive): " + strings.Join(words, ", ")
		}
		return ""
	}
}

func notEmpty(_ *Def, v Value) string {
	if len(v.List) == 0 {
		return "must not be empty"
	}
	return ""
}

var replicaPair = regexp.MustCompile(`^\d+:\d+$`)

func throttled(d *Def, v Value) string {
	if len(v.List) == 0 || (len(v.List) == 1 && v.List[0] == "*") {
		return ""
	}
	for _, e := range v.List {
		if !replicaPair.MatchString(e) {
			return d.Name + " must be the literal '*' or a list of replicas in the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],..."
		}
	}
	return ""
}

var listenerForm = regexp.MustCompile(`^[A-Za-z0-9_.-]+://(\[[0-9A-Fa-f:.]*\]|[A-Za-z0-9._-]*):\d{1,5}$`)

func listenerList(_ *Def, v Value) string {
	for _, e := range v.List {
		if !listenerForm.MatchString(e) {
			return "Unable to parse " + e + " to a broker endpoint"
		}
	}
	return ""
}

func overrides(_ *Def, v Value) string {
	for _, e := range splitList(v.Text) {
		i := strings.LastIndexByte(e, ':')
		if i < 1 {
			return "must be a list of address:number"
		}
		if n, err := strconv.ParseInt(strings.TrimSpace(e[i+1:]), 10, 32); err != nil || n < 0 {
			return "must be a list of address:number"
		}
	}
	return ""
}

var isoDuration = regexp.MustCompile(`^P(\d+D)?(T(\d+H)?(\d+M)?(\d+(\.\d{1,9})?S)?)?$`)

func shareReset(d *Def, v Value) string {
	iso, ok := strings.CutPrefix(v.Text, "by_duration:")
	iso = strings.ToUpper(iso)
	if v.Text == "latest" || v.Text == "earliest" || (ok && isoDuration.MatchString(iso) && iso != "P" && !strings.HasSuffix(iso, "T")) {
		return ""
	}
	return "Invalid value `" + v.Text + "` for configuration " + d.Name + ". The value must be either 'earliest', 'latest' or of the format 'by_duration:<PnDTnHnMn.nS>'."
}
