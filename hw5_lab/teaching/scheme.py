"""What is graded and what it is worth, from a file that a teacher edits; and the points of raw results under it."""

from dataclasses import dataclass, field
from pathlib import Path

from hw5_lab.teaching import questions_diffusion, questions_losses, questions_networks, questions_vae  # noqa: F401
from hw5_lab.teaching.judging import NOT_SHOWN, QUESTIONS

DEFAULT = Path(__file__).with_name("points.toml")
FILES = "hw5_vae", "hw5_gan", "hw5_diffusion"
VISIBILITIES = "visible", "after_due_date", "after_published", "hidden"
ORDER = [
    *("2(a)", "2(b)i", "2(b)ii", "2(b)iii", "2(b)iv", "2(c)", "2(e)iii"),
    *("4(a)", "4(b)", "4(c)", "4(d)", "4(e)", "4(b) levels", "4(b) network", "4(b) loss", "4(c) sampler"),
]


NO_ANSWER = "there is no", "importing ", "the code ", "not graded", "not answered", "not shown", "a fault of the grader"


class Fault(Exception):
    """What is wrong with the teacher's file, in a line."""


@dataclass
class Check:
    points: float
    fails: str = ""
    visibility: str = "visible"


@dataclass
class Part:
    """A check with the points it earned."""

    name: str
    points: float
    out_of: float
    wrong: str  # "" where right
    visibility: str
    fails: str = ""

    @property
    def said(self):
        fails = "" if self.wrong.startswith(NO_ANSWER) else self.fails  # of these it would say something untrue
        return ": ".join(filter(None, [fails, self.wrong])) if self.wrong else ""


@dataclass
class Result:
    """A question's parts, and remarks on what costs nothing."""

    question: str
    title: str
    parts: list
    remarks: list = field(default_factory=list)

    @property
    def points(self):
        return sum(part.points for part in self.parts)

    @property
    def out_of(self):
        return sum(part.out_of for part in self.parts)

    def lines(self):
        """What is wrong: a line for each reason, with the parts that it costs; then the remarks."""
        reasons = {}
        for part in self.parts:
            if part.wrong:
                reasons.setdefault(part.wrong, []).append(part)
        return [
            *(
                f"{', '.join(part.name for part in parts)}: {parts[0].said if len(parts) == 1 else reason}"
                for reason, parts in reasons.items()
            ),
            *(f"(remark) {each}" for each in self.remarks),
        ]


@dataclass
class Scheme:
    questions: dict  # {number: (title, {check: Check})}
    words: dict  # {a part of a sentence: a teacher's words}

    def say(self, sentence):
        return next((words for part, words in self.words.items() if part in sentence), sentence)

    def results(self, raw):
        """[Result] of raw results {"checks": {number: {check: why}}, "remarks": {number: [sentence]}}.

        A check earns its points where it was shown to be right: where there is "", and nothing else.
        """
        made = []
        for number, (title, checks) in self.questions.items():
            found = raw["checks"].get(number, {})
            parts = []
            for name, check in checks.items():
                wrong = found.get(name, NOT_SHOWN)
                said = wrong and self.say(wrong)
                parts.append(
                    Part(name, 0 if wrong else check.points, check.points, said, check.visibility, check.fails)
                )
            earned = any(not each for name, each in found.items() if name in checks)
            remarks = list(raw["remarks"].get(number, []))
            shown = {name: each for name, each in found.items() if each and each != NOT_SHOWN}
            remarks += [each for name, each in shown.items() if name not in checks and earned]
            paid = [part for part in parts if part.out_of]
            free = [part for part in parts if not part.out_of and part.name in shown]
            remarks += [part.wrong for part in free if earned]
            made.append(Result(number, title, paid, list(map(self.say, remarks))))
        return made


def read(path=DEFAULT):
    """The Scheme of a file. Fault for what it may not say, and where there is no tomllib."""
    try:
        import tomllib
    except ImportError:
        raise Fault(f"{path}: reading it needs Python 3.11 or later (its module tomllib)") from None
    try:
        text = Path(path).read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Fault(f"{path}: {getattr(error, 'strerror', None) or error}") from None

    def expect(good, where, what):
        if not good:
            raise Fault(f"{path}: {where}: {what}")

    files, visibility, words = (
        table.pop(key, other) for key, other in (("files", list(FILES)), ("visibility", "visible"), ("words", {}))
    )
    expect(isinstance(files, list) and set(files) <= set(FILES), "files", f"expected some of {', '.join(FILES)}")
    expect(visibility in VISIBILITIES, "visibility", f"expected one of {', '.join(VISIBILITIES)}")
    texts = isinstance(words, dict) and all(isinstance(each, str) and each.strip() for each in words.values())
    expect(texts, "words", 'expected lines "a part of a sentence" = "other words"')
    questions = {}
    for number, entry in table.items():
        expect(number in QUESTIONS, number, f"no such question; there are {', '.join(ORDER)}")
        known, checks = QUESTIONS[number].checks, {}
        expect(isinstance(entry, dict), number, f'expected a table ["{number}"]')
        title = entry.pop("title", known[0])
        expect(isinstance(title, str), f"{number}, title", "expected a text")
        for name, value in entry.items():
            where = f"{number}, {name}"
            expect(name in known, where, f"no such check; there are {', '.join(known)}")
            value = value if isinstance(value, dict) else {"points": value}
            unknown = set(value) - {"points", "fails", "visibility"}
            expect(not unknown, where, f"no such key {', '.join(unknown)}; there are points, fails, visibility")
            points, fails = value.get("points"), value.get("fails", "")
            number_like = isinstance(points, (int, float)) and not isinstance(points, bool)
            expect(number_like and 0 <= points < 1000, where, "expected points from 0 to 1000, as in points = 2")
            expect(isinstance(fails, str), where, "expected a text for fails")
            seen = value.get("visibility", visibility)
            expect(seen in VISIBILITIES, where, f"expected a visibility of {', '.join(VISIBILITIES)}")
            checks[name] = Check(points, fails, seen)
        questions[number] = title, checks
    expect(questions, "questions", "none is there")
    asked = [number for number in ORDER if number in questions and QUESTIONS[number].file in files]
    expect(asked, "files", "no question of these files is there")
    return Scheme({number: questions[number] for number in asked}, words)
