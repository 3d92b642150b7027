"""Texts that ranges are measured on where a user gives none: short and long, plain and odd, and rows of tokens from the
whole vocabulary."""

from __future__ import annotations

import numpy as np

from secformer.models.data.batch import Row

Sample = str | tuple[str, str]

MOST_MEASURED = 512  # tokens of the longest built-in text: longer ones cost minutes at load, and widen ranges little
SHORT, MEDIUM = 12, 126  # words, or tokens beside the special ones, of repetitions
DRAWN, FEW = 16, 2       # tokens of the vocabulary that are repeated over a short length, and over a medium one, too
STEP = (5.0**0.5 - 1.0) / 2.0  # of the vocabulary: multiples of it lie evenly there, in no order that texts have

PROSE: tuple[str, ...] = (
    "What time does the last train to Lyon leave on Sundays?",
    "A quiet, patient film that rewards anyone willing to sit still with it.",
    "I have rarely been so bored; two hours of my life that nobody will give back.",
    "It was not bad, not good, and not worth arguing about either.",
    "Der schnelle Fuchs springt nicht über jeden Zaun, und das weiß er auch.",
    "¿Quién dijo que mañana no llovería en toda la península?",
    "Cette idée lui semblait à la fois brillante et parfaitement irréalisable.",
    "Buffalo buffalo Buffalo buffalo buffalo buffalo Buffalo buffalo.",
    "Mitochondria convert the energy of nutrients into adenosine triphosphate, which powers most cellular work.",
    "The court held that the clause was void, since neither party had consented to it in writing.",
    "Add two eggs, a pinch of salt and 250 ml of milk; whisk until smooth, rest for half an hour, then fry in butter.",
    "Shares of the airline fell 12 percent on Tuesday after it warned that fuel costs would wipe out its profit.",
    "In 1969 people first walked on the Moon, and hundreds of millions watched it happen on small grey screens.",
    "She said she would call, he said he would wait, and in the end neither of them remembered which evening they "
    "had meant, so the telephone rang in an empty flat while he stood outside a cinema that had closed years before, "
    "reading the same faded poster over and over until the rain made the decision for him.",
)

ODD: tuple[str, ...] = (
    "Yes.",
    "",
    "no",
    "?!",
    "The kettle is on.",
    "STOP SHOUTING AT ME, I CAN HEAR YOU PERFECTLY WELL!!!",
    "Invoice 2024-00317: 14 units at 1,299.99 EUR, 7.5 % discount, due 30/11/2025.",
    "3.14159 26535 89793 23846 26433 83279 50288 41971 69399 37510",
    "x = [i ** 2 for i in range(10) if i % 3 != 0]  # squares",
    "SELECT name, COUNT(*) FROM orders WHERE total > 100 GROUP BY name HAVING COUNT(*) >= 5;",
    "https://example.org/path?query=value&page=2#section-4",
    "please reply to jane.doe+news@example.com before 17:45 UTC",
    "今天下午我们在图书馆见面,好吗?",
    "Сегодня утром в парке было тихо и очень холодно.",
    "この本はとても面白かったです。",
    "صباح الخير، كيف حالك اليوم؟",
    "lol omg cant believe u did that :-) <3 #fail @everyone",
    "-- -- -- *** ((())) [[[]]] {{{}}} ~~~ ... ,,, ;;; ::: ||| \\\\ ///",
    "the the the the the the the the the the the the the the the the",
    "Antidisestablishmentarianism, floccinaucinihilipilification and pneumonoultramicroscopicsilicovolcanoconiosis",
    "zxqv wpfk jjhg qqqq bnmx 7f3a9c0e-44d1-4b8e-9a77-1d2c3b4a5f60",
)

PAIRS: tuple[tuple[str, str], ...] = (
    ("A man is playing a guitar on stage.", "Someone performs music in front of an audience."),
    ("The company was founded in 1998.", "The firm has never existed."),
    ("Is it going to rain tomorrow?", "What does the weather forecast say?"),
    ("Who wrote the first published computer program?",
     "Ada Lovelace described an algorithm for the Analytical Engine in 1843; many call it the first program."),
    ("ok", "The committee, having met three times without a quorum, postponed every item on its agenda until spring."),
    ("Prices rose.", "Prices fell."),
)

REPEATED: tuple[str, ...] = ("the", "good", "film", "love", "word", "bad", "not", "a", "7", "!")

BUILTIN_TEXTS: tuple[Sample, ...] = (*PROSE, *ODD, *PAIRS)


def long_text(words: int) -> str:
    """Plain prose of at least so many words: ranges grow with a text's length."""
    once = " ".join([*PROSE, *(part for pair in PAIRS for part in pair)])
    return " ".join([once] * (1 + words // len(once.split())))


def repetitions(longest: int) -> list[str]:
    """One word over and over, in short and medium texts, and in one that is as long as a model takes: attention, sums
    and variances then reach what they never reach in prose."""
    counts = [(word, SHORT) for word in REPEATED] + [(word, MEDIUM) for word in REPEATED[1:4]]
    return [" ".join([word] * n) for word, n in [*counts, (REPEATED[0], longest)]]


CONVERSATIONS: tuple[tuple[dict[str, str], ...], ...] = tuple(
    tuple({"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts))
    for texts in (PROSE[:1], PROSE[1:4], PROSE[4:9], PROSE[9:14], (PAIRS[2][0],), ("Hi!",),
                  (ODD[6], PROSE[-1], ODD[8])))


def token_rows(frame: np.ndarray, words: int, longest: int) -> list[Row]:
    """Rows of ids, for the whole vocabulary: rare tokens and special ones, each repeated and among others.

    frame    the ids of the empty text: the special tokens before and after a text, if there are any
    words    the size of the vocabulary
    longest  the most tokens that a row may have
    """
    ends, most = np.array_split(frame, 2), max(0, longest - len(frame))

    def row(ids: np.ndarray) -> Row:
        whole = np.concatenate([ends[0], ids[:most] % words, ends[1]]).astype(np.int64)
        return Row(whole, np.zeros_like(whole), np.ones_like(whole))

    special, drawn = np.unique(frame), drawn_ids(DRAWN, words)
    repeated = [row(np.full(SHORT, i)) for i in (*special, 0, words - 1, *drawn)]
    repeated += [row(np.full(MEDIUM, i)) for i in (*special[-1:], *drawn[:FEW])]
    return [*repeated, *(row(drawn_ids(n, words)) for n in (1, SHORT, MEDIUM))]


def drawn_ids(count: int, words: int) -> np.ndarray:
    """Ids that lie evenly in the vocabulary, the same ones every time."""
    return np.asarray(np.arange(1, count + 1) * STEP % 1.0 * words).astype(np.int64)
