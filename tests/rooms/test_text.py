"""The analyser, the scorer and the snippets: pure functions, so everything here runs without a database."""

import math
import sys
import threading
import time
import unicodedata
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from perdure.values.errors import Invalid, OverLimit, Undecodable
from perdure.values.rank import Bm25, frequency, pack_terms, unpack_terms
from perdure.values.snippet import SNIPPET_TEXT_CHARS, snippet
from perdure.values.text import TERM_CHARS, analyse, fold, query_terms, token_pattern, token_terms

# Characters that have broken analysers before: marks, joiners, scripts without spaces, case pairs of unequal length,
# compatibility characters that hold spaces and punctuation.
HOSTILE = "aZ9_.-/\\@' :\n\0\t’éßİıſﬃΣς½①㎏㈱ﷺ\u037a\u00adé\u0301\u0316\u200d\ufe0f\u3099東京あガｶﾞ한ㅎㅏ\u1100\u1161กำ\u0e48नि👩🏽🇩🇪\U00020000\U000e0100"
texts = st.one_of(
    st.text(max_size=80),
    st.text(alphabet=HOSTILE, max_size=80),
    st.lists(st.sampled_from(["max_tokens", "getUserName", "東京都", "the", "naïve", "running", "…", "\n"])).map(
        " ".join
    ),
)


def fraction_of_a_second(run, *args):
    started = time.process_time()
    run(*args)
    return time.process_time() - started


# --- analyser ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \n\t ... !?", []),
        ("Hello, World!", ["hello", "world"]),
        ("running runs RUN", ["run", "run", "run"]),
        ("the agents of a user", ["agent", "user"]),
        ("don't can’t user's o'clock", ["cant", "user", "oclock"]),
        ("'quoted' ‘words’", ["quot", "word"]),
        ("max_tokens", ["maxtoken", "max", "token"]),
        ("__init__", ["init"]),
        ("getUserName", ["getusernam", "get", "user", "name"]),
        ("HTTPServer utf8Decoder IDs", ["httpserver", "http", "server", "utf8decod", "utf8", "decod", "id"]),
        ("PostgreSQL", ["postgresql", "postgr", "sql"]),
        ("src/app.py", ["srcapppi", "src", "app", "py"]),
        ("e-mail", ["email", "e", "mail"]),
        ("first--second wait...what", ["first", "second", "wait", "what"]),
        ("3.11 v1.2", ["3.11", "3", "11", "v1.2", "v1", "2"]),
        ("std::vector key:value", ["std", "vector", "key", "valu"]),
        ("Straße STRASSE", ["strass", "strass"]),
        ("café CAFÉ cafe\u0301 cafe", ["cafe"] * 4),
        ("Łódź smørbrød", ["lodz", "smorbrod"]),
        ("ＦＵＬＬ ５㎏ ﬁle", ["full", "5kg", "file"]),
        ("co\u00adoperate", ["cooper"]),
        ("½", ["1", "2"]),
        ("東京都", ["東京", "京都"]),
        ("猫", ["猫"]),
        ("東京Tower2", ["東京", "tower2"]),
        ("ガ が か\u3099 ｶﾞ", ["ガ", "が", "が", "ガ"]),
        ("한국어", ["한국", "국어"]),
        ("ภาษา", ["ภา", "าษ", "ษา"]),
        ("हिन्दी", ["हिन्दी"]),
        ("ΣΊΣΥΦΟΣ Σίσυφος", ["σισυφοσ", "σισυφοσ"]),
        ("👩‍💻 ✅", []),
        ("\0a1\0b2", ["a1", "b2"]),
    ],
)
def test_text_becomes_these_terms(text, expected):
    assert analyse(text) == expected


@pytest.mark.parametrize(
    ("query", "document"),
    [
        ("tokens", "max_tokens=1"),
        ("user", "call getUserName()"),
        ("getusername", "call getUserName()"),
        ("MaxTokens", "max_tokens=1"),
        ("wifi", "the Wi-Fi is down"),
        ("errors.py", "see src/perdure/values/errors.py, line 3"),
        ("JAVASCRIPT", "JavaScript"),
        ("resume", "Résumé"),
        ("Tower", "東京Tower"),
        ("サーバー", "ｻｰﾊﾞｰ"),
        ("한글", "\u1112\u1161\u11ab\u1100\u1173\u11af"),
        ("can’t", "they can't"),
        ("brien", "Mr O'Brien"),
    ],
)
def test_a_query_finds_what_people_expect(query, document):
    assert set(query_terms(query, 64)) & set(analyse(document))


def test_a_stroke_of_digits_is_not_joined_across_a_dot():
    assert "311" not in analyse("3.11")


def test_a_long_word_is_cut_and_a_long_compound_has_its_parts_only():
    assert analyse("x" * 1000) == ["x" * TERM_CHARS]
    path = "/".join(["directory"] * 9)
    assert analyse(path) == analyse("directory") * 9


def test_a_word_of_base64_is_not_taken_apart():
    assert len(analyse("aGVsbG8gd29ybGQ" * 100)) == 1


def test_ascii_text_has_the_same_terms_when_other_text_follows():
    text = "The max_tokens of getUserName, don't: src/a.py 3.11 'x' __a__ a--b a-_b foo@bar.com \\n"
    assert analyse(text + " é") == [*analyse(text), "e"]


def test_every_character_alone_and_among_letters_gives_clean_terms():
    codes = [
        *range(0xD800),
        *range(0xE000, 0x20100),
        *range(0x2F800, 0x2FA20),
        *range(0xE0000, 0xE0200),
        sys.maxunicode,
    ]
    for term in set(analyse("\n".join(f"{chr(code)} a1{chr(code)}b2" for code in codes))):
        assert_clean(term)


def assert_clean(term):
    assert 1 <= len(term) <= TERM_CHARS
    assert not any(char.isspace() or char in ":\0" or "A" <= char <= "Z" for char in term)


@given(texts)
@example("\ud800 lone surrogates do not raise either")
def test_any_text_gives_clean_terms(text):
    for term in analyse(text):
        assert_clean(term)


@given(texts)
def test_a_second_look_gives_the_same_terms(text):
    assert analyse(text) == analyse(text)
    assert analyse(text) == [term for token in token_pattern(text).findall(text) for term in token_terms(token)]


@given(texts, texts)
def test_terms_do_not_depend_on_what_stands_in_the_next_line(one, other):
    assert analyse(f"{one}\n{other}") == analyse(one) + analyse(other)


@given(st.text(alphabet="abcéèñüöåçΆŽ東京가 ", max_size=40))
def test_composed_and_decomposed_text_have_the_same_terms(text):
    assert analyse(unicodedata.normalize("NFD", text)) == analyse(text)


@pytest.mark.parametrize(
    "text",
    [
        "a" * 1_000_000,
        "a." * 500_000,
        "ab_" * 333_333,
        "aB" * 500_000,
        "_" * 1_000_000,
        "é" + "." * 1_000_000,
        "é'" * 333_333,
        "½" * 500_000,
        "ﷺ" * 333_333,
        "a" + "\u0316\u0301" * 250_000,
        "ก" + "\u0e38\u0e48" * 166_666,
        "א" + "\u05b0\u05b1" * 250_000,
        "東" * 333_333,
        "👩‍💻" * 90_000,
        " ".join(f"w{n}ord" for n in range(100_000)),
    ],
    ids=lambda text: ascii(text[:4]),
)
def test_a_megabyte_of_anything_takes_a_fraction_of_a_second(text):
    # The bound is ten times what it takes, for slow machines; a quadratic step would need minutes.
    assert fraction_of_a_second(analyse, text) < 5
    assert fraction_of_a_second(snippet, text, ["zzz"]) < 5


def test_short_texts_are_analysed_at_a_tenth_of_the_promised_speed_at_least():
    texts_of_20_words = [
        f"note {n} " + "the agents remember long conversations about databases " * 3 for n in range(4_000)
    ]

    def run():
        for text in texts_of_20_words:
            analyse(text)

    assert fraction_of_a_second(run) < 2  # 2,000 a second; measured: 200,000


def test_threads_get_the_terms_that_one_thread_gets():
    words = [f"{stem}{n}ations running{n}ly" for n in range(500) for stem in ("gener", "conn")]
    answers: list[list[list[str]]] = []

    def work():
        answers.append([analyse(word) for word in words])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8
    assert all(answer == answers[0] for answer in answers)


# --- query terms ------------------------------------------------------------------------------------------------------


def test_query_terms_are_different_and_in_order():
    assert query_terms("tokens cost Token costs money", 64) == ["token", "cost", "money"]


def test_query_terms_beyond_the_limit_do_not_count():
    assert query_terms("one two three four", 2) == ["one", "two"]
    assert query_terms("one", 0) == []


def test_a_query_of_stop_words_has_no_terms():
    assert query_terms("to be or not to be", 64) == []


def test_the_limit_of_query_terms_is_checked():
    with pytest.raises(Invalid):
        query_terms("x", -1)
    with pytest.raises(OverLimit):
        query_terms("x", 65)


# --- scorer -----------------------------------------------------------------------------------------------------------


def test_idf_is_the_formula():
    assert Bm25().idf(10, 3) == pytest.approx(math.log(1 + (10 - 3 + 0.5) / (3 + 0.5)))


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_idf_is_positive_and_falls_with_the_frequency(documents, held_by):
    assert Bm25().idf(documents, held_by) > 0
    assert Bm25().idf(documents, held_by) >= Bm25().idf(documents, held_by + 1)


def test_score_is_the_formula():
    scorer = Bm25(k1=1.2, b=0.75)
    expected = Fraction(0)
    for tf, idf in ((2, 1.5), (0, 4.0), (1, 0.5)):
        k1, b = Fraction(12, 10), Fraction(3, 4)
        expected += Fraction(idf) * tf * (k1 + 1) / (tf + k1 * (1 - b + b * Fraction(30, 20)))
    assert scorer.score([2, 0, 1], 30, 20.0, [1.5, 4.0, 0.5]) == pytest.approx(float(expected))


def test_a_document_without_the_terms_scores_nothing():
    assert Bm25().score([0, 0], 5, 5.0, [1.0, 1.0]) == 0
    assert Bm25().score([], 5, 5.0, []) == 0
    assert Bm25(k1=0).score([0], 5, 5.0, [1.0]) == 0


@given(st.integers(1, 1000), st.integers(1, 10_000), st.floats(1, 10_000))
def test_more_occurrences_score_higher_and_longer_documents_lower(tf, length, mean):
    scorer = Bm25()
    assert scorer.score([tf + 1], length, mean, [1.0]) > scorer.score([tf], length, mean, [1.0])
    assert scorer.score([tf], length + 1, mean, [1.0]) < scorer.score([tf], length, mean, [1.0])


def test_additions_happen_one_after_the_other():
    # A compensated sum would keep the small ones.
    idfs = [1.0, *[2.0**-53] * 4]
    assert Bm25(k1=0, b=0).score([1] * 5, 1, 1.0, idfs) == 1.0


def test_without_a_mean_length_documents_are_not_told_apart_by_length():
    assert Bm25().score([1], 9, 0.0, [1.0]) == Bm25().score([1], 1, 0.0, [1.0])


@pytest.mark.parametrize("arguments", [{"k1": -1}, {"k1": math.nan}, {"k1": math.inf}, {"b": 1.1}, {"b": math.nan}])
def test_a_scorer_with_impossible_constants_is_refused(arguments):
    with pytest.raises(Invalid) as refused:
        Bm25(**arguments)
    assert refused.value.field == next(iter(arguments))


def test_counters_and_sequences_that_cannot_be_are_refused():
    with pytest.raises(Invalid):
        Bm25().idf(-1, 0)
    with pytest.raises(Invalid):
        Bm25().idf(3, -2)
    with pytest.raises(Invalid):
        Bm25().score([1], 1, 1.0, [1.0, 2.0])


# --- stored form ------------------------------------------------------------------------------------------------------


def test_packed_terms_are_sorted_by_code_point_between_spaces():
    assert pack_terms(["b", "東京", "a", "b", "é"]) == " a:1 b:2 é:1 東京:1 "


def test_no_terms_pack_to_nothing():
    assert pack_terms([]) == ""
    assert unpack_terms("") == {}
    assert frequency("", "a") == 0


@given(texts)
def test_packed_terms_give_back_frequencies_and_length(text):
    terms = analyse(text)
    packed = pack_terms(terms)
    counts = unpack_terms(packed)
    assert list(counts) == sorted(set(terms))
    assert sum(counts.values()) == len(terms)
    for term in counts:
        assert frequency(packed, term) == counts[term] == terms.count(term)


def test_a_term_is_not_found_inside_another():
    packed = pack_terms(["token", "maxtoken", "tokens2", "3.11", "1"])
    assert [frequency(packed, term) for term in ("tok", "oken", "tokens", "11", "3", "token")] == [0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize("term", ["a b", "a:1", "", " "])
def test_terms_that_would_break_the_form_are_refused(term):
    with pytest.raises(Invalid):
        pack_terms(["ok", term])


@pytest.mark.parametrize("packed", [" a ", " a:x ", " a: ", " :1 ", " a:-1 ", " a:² "])
def test_a_damaged_form_is_reported(packed):
    with pytest.raises(Undecodable):
        unpack_terms(packed)


def test_a_damaged_frequency_is_reported():
    with pytest.raises(Undecodable):
        frequency(" a:x b:1 ", "a")


# --- snippets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "query", "width", "expected"),
    [
        ("short text", "text", 160, "short **text**"),
        ("no match here", "zebra", 160, "no match here"),
        ("", "a1", 160, ""),
        ("line one\n\n  line\ttwo", "two", 160, "line one line **two**"),
        ("Checkpoints and CHECKPOINT.", "checkpoint", 160, "**Checkpoints** and **CHECKPOINT**."),
        ("le café fermé", "cafe", 160, "le **café** fermé"),
        ("le cafe\u0301 ferme\u0301", "café", 160, "le **cafe\u0301** ferme\u0301"),
        ("call getUserName() now", "user", 160, "call **getUserName**() now"),
        ("私は東京都に住む", "東京都", 160, "私は**東京都**に住む"),
        ("ｻｰﾊﾞｰは重い", "サーバー", 160, "**ｻｰﾊﾞｰ**は重い"),
        ("한국어 문서", "한국", 160, "**한국**어 문서"),
        (
            "\u1112\u1161\u11ab\u1100\u116e\u11a8\u110b\u1165",
            "한국",
            160,
            "**\u1112\u1161\u11ab\u1100\u116e\u11a8**\u110b\u1165",
        ),
        ("👩‍💻 codes 🇩🇪", "code", 160, "👩‍💻 **codes** 🇩🇪"),
        ("only **bold** before", "before", 160, "only **bold** **before**"),
        ("one two three four five six seven", "four", 14, "…**four** five…"),
        ("aaa bbb ccc ddd", "aaa", 7, "**aaa** bbb…"),
        ("aaa bbb ccc ddd", "ddd", 7, "…ccc **ddd**"),
        ("aaa bbb ccc ddd", "zzz", 7, "aaa bbb…"),
        ("unbreakable", "zzz", 4, "unbr…"),
        ("unbreakable", "unbreakable", 4, "**unbr**…"),
        ("あいうえおかきくけこ", "かき", 6, "…えお**かき**くけ…"),
    ],
)
def test_a_snippet_looks_like_this(text, query, width, expected):
    assert snippet(text, query_terms(query, 64), width=width) == expected


def test_the_window_with_most_different_terms_wins():
    text = "apple apple apple apple " + "filler " * 50 + "apple banana " + "filler " * 50
    assert "**apple** **banana**" in snippet(text, ["appl", "banana"], width=40)


def test_of_equal_windows_the_earliest_wins():
    text = "first apple " + "filler " * 50 + "second apple"
    assert "first **apple**" in snippet(text, {"appl"}, width=40)


def test_markers_and_ellipsis_are_the_callers():
    text = "filler " * 20 + "apple"
    assert snippet(text, ["appl"], width=12, before="<b>", after="</b>", ellipsis="...") == "...filler <b>apple</b>"


def test_a_match_within_a_long_path_is_shown_at_its_place():
    path = "/".join(["directory"] * 60 + ["needle"] + ["directory"] * 60)
    shown = snippet(path, ["needl"], width=40)
    assert "/**needle**/" in shown


def test_a_match_beyond_the_limit_is_not_looked_for():
    text = "filler " * (SNIPPET_TEXT_CHARS // 7 + 1) + "apple"
    assert snippet(text, ["appl"], width=20) == "filler filler filler…"


def test_an_emoji_or_an_accent_is_never_cut_in_two():
    for width in range(1, 12):
        shown = snippet("👩🏽‍💻👩🏽‍💻 🇩🇪🇫🇷 e\u0301e\u0301 x1 e\u0301e\u0301 👩🏽‍💻", ["x1"], width=width)
        body = shown.strip("…").replace("**", "")
        assert not body.startswith(("\u0301", "\u200d", "🏽", "💻"))
        assert not body.endswith("\u200d")


@pytest.mark.parametrize("width", [0, -1])
def test_a_width_below_one_is_refused(width):
    with pytest.raises(Invalid):
        snippet("x", ["x"], width=width)


def test_a_width_above_the_limit_is_refused():
    with pytest.raises(OverLimit):
        snippet("x", ["x"], width=10_001)


@given(texts, st.integers(1, 60), st.data())
@settings(max_examples=400)
def test_a_snippet_highlights_whenever_the_text_matches(text, width, data):
    terms = sorted(set(analyse(text)))
    wanted = data.draw(st.lists(st.sampled_from(terms), min_size=1)) if terms else ["zzz"]
    shown = snippet(text, wanted, width=width, before="\ue000", after="\ue001", ellipsis="\ue002")
    assert shown.count("\ue000") == shown.count("\ue001")
    assert ("\ue000" in shown) == bool(terms)
    assert "\n" not in shown
    plain = shown.strip("\ue002").replace("\ue000", "").replace("\ue001", "")
    assert len(plain) <= width
    assert plain in " ".join(text.split())


@given(
    st.lists(st.sampled_from(["apple", "naïve", "max_tokens", "don't", "x1", "東京", "e\u0301a"]), max_size=30),
    st.data(),
)
def test_what_is_highlighted_matches_and_what_is_not_does_not(words, data):
    terms = sorted(set(analyse(" ".join(words))) | {"zzz"})
    wanted = set(data.draw(st.lists(st.sampled_from(terms))))
    shown = snippet(" ".join(words), wanted, width=10_000, before="<", after=">")
    expected = [f"<{word}>" if wanted & set(analyse(word)) else word for word in words]
    assert shown == " ".join(expected)


@given(st.text(alphabet=HOSTILE, max_size=40))
def test_folding_twice_changes_nothing(text):
    assert fold(fold(text)) == fold(text)
