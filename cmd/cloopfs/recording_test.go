package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/internal/cli"
	"github.com/cloopfs/cloopfs/internal/line"
	"github.com/cloopfs/cloopfs/profile"
)

// nothing is blocks without bytes.
type nothing struct{ blockio.Runs }

func (nothing) ReadRun(context.Context, blockio.Class, int64, int64, func(int64, []byte) error) error {
	return nil
}

// What is at the place of a recording stays until there is something to record; where
// there is nothing a recording of nothing is one.
func TestRecording(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.profile")
	o := profileOptions{Record: cli.Name(path)}
	if err := o.tryRecord(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("trying has made the file")
	}
	image := profile.Image{Size: 5, Blocks: 5, Identity: "x"}
	record := func(read func(rec *profile.Recorder)) string {
		rec := profile.NewRecorder(nothing{}, image)
		r := &recording{path: path, rec: rec, log: slog.New(slog.DiscardHandler)}
		stop := line.InBackground(t.Context(), r.run)
		read(rec)
		stop()
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if text := record(func(*profile.Recorder) {}); !strings.HasSuffix(text, "\nend 0\n") {
		t.Errorf("of nothing: %q", text)
	}
	one := func(rec *profile.Recorder) {
		_ = rec.ReadRun(t.Context(), blockio.Demand, 2, 2, nil) // it does not fail
	}
	if text := record(one); !strings.HasSuffix(text, "\nend 1\n") {
		t.Errorf("of a read: %q", text)
	}
	if err := o.tryRecord(); err != nil {
		t.Error(err)
	}
	if text := record(func(*profile.Recorder) {}); !strings.HasSuffix(text, "\nend 1\n") {
		t.Errorf("of nothing, over another: %q", text)
	}
	if list, err := os.ReadDir(filepath.Dir(path)); err != nil || len(list) != 1 {
		t.Errorf("the directory has %v, %v", list, err)
	}
}

// The trace to be replayed may be the one that is to be recorded, also the first time.
func TestRecordWhatIsReplayed(t *testing.T) {
	path := cli.Name(filepath.Join(t.TempDir(), "x.profile"))
	o := profileOptions{Profile: profileValue(path), Record: path}
	if p, err := o.file(); p != nil || err != nil {
		t.Errorf("the first time: %v, %v", p, err)
	}
	o.Record = ""
	if _, err := o.file(); cli.ExitCode(err) != cli.ExitFailure {
		t.Errorf("not to be recorded: %v", err)
	}
}
