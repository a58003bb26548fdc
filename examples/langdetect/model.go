package main

import (
	"context"
	"errors"
	"math"
	"runtime"
	"slices"
	"strings"
	"unicode"

	"github.com/pemistahl/lingua-go"
)

// Language is a language that a model can detect.
type Language struct {
	Name string `json:"language"`
	Code string `json:"code"` // ISO 639-1
}

// Guess is a language with the model's confidence in it, 0 to 1.
type Guess struct {
	Language
	Confidence float64 `json:"confidence"`
}

// Detection is the result of a model for a text.
type Detection struct {
	Best   *Guess // nil if no language was detected
	Reason string // why Best is nil
	Others []Guess
}

// maxOthers is the number of other candidates in a response: enough to see how close the result was.
const maxOthers = 4

// linguaModel detects languages with the n-gram models of lingua-go.
type linguaModel struct {
	detector  lingua.LanguageDetector
	languages []Language
}

// loadLingua reads the models of languages into memory, calls loaded for each group that is there, and proves the whole
// with real detections. All is loaded now and nothing at the first request: that keeps the first
// answer fast, and makes a memory limit that is too small show at the start.
func loadLingua(ctx context.Context, languages []lingua.Language, acc accuracy, loaded func([]Language)) (*linguaModel, error) {
	// Lingua keeps what it has read in one table of the process, so detectors of a few languages
	// fill it group by group, and the last one over all of them finds everything there.
	// A group keeps each CPU busy; all at once would hold 75 unpacked files in memory.
	for group := range slices.Chunk(languages, max(2, runtime.GOMAXPROCS(0))) {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		names := describe(group)
		if len(group) == 1 { // lingua wants two at least
			group = append(slices.Clone(group), languages[0])
		}
		newDetector(group, acc)
		loaded(names)
	}
	m := &linguaModel{detector: newDetector(languages, acc), languages: describe(languages)}
	if err := m.warmUp(); err != nil {
		return nil, err
	}
	return m, nil
}

func newDetector(languages []lingua.Language, acc accuracy) lingua.LanguageDetector {
	// The builder modifies its argument.
	b := lingua.NewLanguageDetectorBuilder().FromLanguages(slices.Clone(languages)...).WithPreloadedLanguageModels()
	if acc == low {
		b = b.WithLowAccuracyMode()
	}
	return b.Build()
}

// warmUp names the language of a short text in every script. One answer at least must come out, whatever languages are
// loaded. It also makes lingua read what "low" keeps for later: the tables of one and two letters, which it
// wants as soon as three letters in a row are new to it, as in the second text.
func (m *linguaModel) warmUp() error {
	texts := []string{
		"the gate lets just enough water through", "qxz wvqk zqxj",
		"сколько воды нужно турбине", "ъщэ йыы цщъ", "كم تحتاج التوربينة من الماء", "ضثظ غؤذ", "पानी कितना चाहिए", "ङञण ढझ",
		"물이 얼마나 필요할까", "水車にはどれだけの水が要るのか", "涡轮机需要多少水", "πόσο νερό χρειάζεται", "כמה מים צריך",
		"որքան ջուր է պետք", "რამდენი წყალია საჭირო", "ต้องใช้น้ำเท่าไร", "কত জল দরকার", "કેટલું પાણી જોઈએ", "ਕਿੰਨਾ ਪਾਣੀ ਚਾਹੀਦਾ ਹੈ",
		"எவ்வளவு தண்ணீர் தேவை", "ఎంత నీరు కావాలి",
	}
	var named bool
	for _, text := range texts {
		named = m.Detect(text).Best != nil || named
	}
	if !named {
		return errors.New("warm up: the loaded models name the language of no text, whatever its script")
	}
	return nil
}

// Languages returns the loaded languages.
func (m *linguaModel) Languages() []Language { return m.languages }

// Detect detects the language of text.
func (m *linguaModel) Detect(text string) Detection {
	if !strings.ContainsFunc(text, unicode.IsLetter) {
		return Detection{Reason: "the text has no letters"}
	}
	var guesses []Guess // best first
	for _, v := range m.detector.ComputeLanguageConfidenceValues(text) {
		if v.Value() == 0 || len(guesses) > maxOthers {
			break
		}
		guesses = append(guesses, Guess{languageOf(v.Language()), v.Value()})
	}
	tie := len(guesses) > 1 && guesses[0].Confidence == guesses[1].Confidence
	for i := range guesses {
		guesses[i].Confidence = math.Round(guesses[i].Confidence*1e4) / 1e4
	}
	switch {
	case len(guesses) == 0:
		return Detection{Reason: "no loaded language fits the text"}
	case tie:
		return Detection{Reason: "several languages fit the text equally well", Others: guesses}
	}
	return Detection{Best: &guesses[0], Others: guesses[1:]}
}

func describe(languages []lingua.Language) []Language {
	described := make([]Language, len(languages))
	for i, language := range languages {
		described[i] = languageOf(language)
	}
	return described
}

func languageOf(language lingua.Language) Language {
	return Language{Name: language.String(), Code: codeOf(language)}
}

func codeOf(language lingua.Language) string {
	return strings.ToLower(language.IsoCode639_1().String())
}
