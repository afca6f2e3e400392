"""Rows that are alike and say different things, by the kind of what they share: none of them is a duplicate."""

import random
from collections.abc import Callable, Iterator

Chat = list[dict[str, str]]

STEMS = [
    "고속도로",
    "휴게소",
    "영업소",
    "단말기",
    "영수증",
    "통행료",
    "할인권",
    "충전소",
    "주차장",
    "안내소",
    "분실물",
    "고지서",
    "견인차",
    "나들목",
    "분기점",
    "교량",
    "터널",
    "우회로",
    "갓길",
    "순찰차",
    "도서관",
    "박물관",
    "미술관",
    "체육관",
    "수영장",
    "식물원",
    "동물원",
    "관측소",
    "등대",
    "항구",
    "선착장",
    "조선소",
    "방앗간",
    "양조장",
    "과수원",
    "목장",
    "양봉장",
    "염전",
    "제재소",
    "인쇄소",
]
VERBS = [
    "고치다",
    "옮기다",
    "닫다",
    "열다",
    "넓히다",
    "줄이다",
    "세우다",
    "허물다",
    "칠하다",
    "빌리다",
    "되찾다",
    "신고하다",
    "미루다",
    "앞당기다",
    "점검하다",
    "청소하다",
    "등록하다",
]
WHERE = [
    "북쪽",
    "강가에서",
    "산기슭에서",
    "시장",
    "옆에서",
    "다리",
    "밑에서",
    "역",
    "앞에서",
    "학교",
    "뒤에서",
    "언덕",
    "위에서",
    "섬",
    "안에서",
    "포구",
    "곁에서",
]
NAMES = ["김서준", "이하윤", "박도현", "최지우", "정시우", "강예린", "조민재", "윤수아", "장건우", "임채원"]
CITIES = [
    "서울",
    "부산",
    "대구",
    "인천",
    "광주",
    "대전",
    "울산",
    "수원",
    "청주",
    "전주",
    "춘천",
    "여수",
    "강릉",
    "목포",
]
ENGLISH = [
    "cat",
    "garden",
    "bridge",
    "window",
    "river",
    "teacher",
    "doctor",
    "harbor",
    "forest",
    "ticket",
    "engine",
    "bottle",
    "mirror",
    "ladder",
    "candle",
    "market",
    "pencil",
]


def fact(rng: random.Random) -> tuple[str, str]:
    """A question and its answer, of words that hardly come together twice."""
    thing, other, verb = rng.choice(STEMS), rng.choice(STEMS), rng.choice(VERBS)
    number = rng.randrange(2, 9999)
    return f"{thing} {rng.choice(WHERE)} {other} {verb[:-1]}려면?", f"{other} {number}호에 물어보세요."


def prose(rng: random.Random, sentences: int) -> str:
    """Sentences that no other call makes again, but by chance."""
    made = []
    for _ in range(sentences):
        words = [f"{rng.choice(STEMS)}{rng.choice(('은', '에서', '까지', '보다', '처럼'))}" for _ in range(7)]
        made.append(" ".join([*words, rng.choice(VERBS)]) + ".")
    return " ".join(made)


def chat(user: str, answer: str, system: str = "") -> Chat:
    turns = [{"role": "system", "content": system}] if system else []
    return [*turns, {"role": "user", "content": user}, {"role": "assistant", "content": answer}]


def _facts(rng: random.Random, count: int) -> list[tuple[str, str]]:
    found = {}
    while len(found) < count:
        asked, answered = fact(rng)
        found[asked] = answered
    return list(found.items())


def system_prompt(rng: random.Random, count: int) -> list[Chat]:
    system = prose(rng, 12)
    return [chat(asked, answered, system) for asked, answered in _facts(rng, count)]


def passage_before(rng: random.Random, count: int) -> list[Chat]:
    """Two or three questions a passage, in one line with it."""
    rows = []
    while len(rows) < count:
        text = prose(rng, 10)
        rows += [chat(f"{text} 질문: {asked}", answered) for asked, answered in _facts(rng, rng.randrange(2, 4))]
    return rows[:count]


def passage_after(rng: random.Random, count: int) -> list[Chat]:
    rows = []
    while len(rows) < count:
        lines = "\n".join(prose(rng, 1) for _ in range(10))
        rows += [chat(f"{asked}\n\n지문:\n{lines}", answered) for asked, answered in _facts(rng, rng.randrange(2, 7))]
    return rows[:count]


def translation(rng: random.Random, count: int) -> list[Chat]:
    head = "다음 문장을 자연스러운 한국어로 번역해 주세요. 의역하지 말고 고유 명사는 그대로 두세요. 문장: "
    found: dict[str, str] = {}
    while len(found) < count:
        one, other = rng.sample(ENGLISH, 2)
        found[f"The {one} stood near the old {other}."] = f"그 {one}은 낡은 {other} 곁에 서 있었다."
        if len(found) > 200:
            break
    return [chat(head + sentence, answer) for sentence, answer in found.items()][:count]


def classification(rng: random.Random, count: int) -> list[Chat]:
    head = "다음 상담 기록을 읽고 고객의 감정을 긍정, 부정, 중립 가운데 하나로만 답하세요. 설명은 쓰지 마세요.\n기록: "
    sentences = {f"{asked[:-1]} 불편했습니다." for asked, _ in _facts(rng, count)}
    return [chat(head + sentence, "부정") for sentence in sorted(sentences)]


def slot_inside(rng: random.Random, count: int) -> list[Chat]:
    things = rng.sample(STEMS, min(count, len(STEMS)))
    return [
        chat(
            f"우리 시의 {thing}에 대하여 초등학생도 알 수 있게 두 문장으로 설명하는 안내문을 존댓말로 써 주세요.",
            prose(rng, 2),
        )
        for thing in things
    ]


def first_turns(rng: random.Random, count: int) -> list[Chat]:
    opening = [turn for asked, answered in _facts(rng, 5) for turn in chat(asked, answered + " " + prose(rng, 2))]
    return [[*opening, *chat(asked, answered)] for asked, answered in _facts(rng, count)]


def growing(rng: random.Random, count: int) -> list[Chat]:
    """Conversations of nine answers, each cut after every answer from the fifth on."""
    rows: list[Chat] = []
    while len(rows) < count:
        turns = [turn for asked, answered in _facts(rng, 9) for turn in chat(asked, answered)]
        rows += [turns[: 2 * number] for number in range(5, 10)]
    return rows[:count]


def same_answer(rng: random.Random, count: int) -> list[Chat]:
    return [chat(asked, "네.") for asked, _ in _facts(rng, count)]


def same_question(rng: random.Random, count: int) -> list[Chat]:
    asked, _ = fact(rng)
    return [chat(asked, prose(rng, 2)) for _ in range(count)]


def sums(rng: random.Random, count: int) -> list[Chat]:
    found = {}
    while len(found) < count:
        a, b = rng.randrange(2, 90), rng.randrange(2, 90)
        found[
            f"한 상자에 사과가 {a}개 들어 있고 이웃이 사과를 {b}개 더 주었습니다. 상자에 든 사과는 모두 몇 개입니까?"
        ] = f"처음에 {a}개가 있었고 {b}개를 더 받았으므로 모두 {a + b}개입니다."
    return [chat(asked, answered) for asked, answered in found.items()]


def dates(rng: random.Random, count: int) -> list[Chat]:
    days = rng.sample(range(1, 29), min(count, 28))
    return [
        chat(
            f"2024년 3월 {day}일 오전에 예약한 회의실을 취소하려면 며칠 전까지 연락해야 하나요?",
            f"3월 {day}일 예약은 하루 전인 3월 {day - 1}일까지 연락하시면 위약금 없이 취소됩니다.",
        )
        for day in days
    ]


def negations(rng: random.Random, count: int) -> list[Chat]:
    rows = []
    for thing in rng.sample(STEMS, min(count // 2, len(STEMS))):
        asked = f"{thing} 이용권은 유효 기간이 지난 뒤에도 창구에서 환불이 되는지 알려 주세요."
        answer = f"문의하신 {thing} 이용권은 기간이 지난 뒤 창구에서 환불이 가능합니다."
        rows += [chat(asked, answer), chat(asked, answer.replace("가능합니다", "불가능합니다"))]
    return rows


def people(rng: random.Random, count: int) -> list[Chat]:
    return [
        chat(
            f"{name} 고객님이 지난주에 맡기신 수리 접수는 지금 어느 단계인지 담당 부서와 함께 알려 주세요.",
            f"{name} 고객님의 접수는 부품을 기다리는 단계이며 담당 부서는 기술 지원 부서입니다.",
        )
        for name in rng.sample(NAMES, min(count, len(NAMES)))
    ]


def licences(rng: random.Random, count: int) -> list[str]:
    head = "# " + prose(rng, 10)
    return [f"{head}\n\n{prose(rng, 2)}" for _ in range(count)]


def footers(rng: random.Random, count: int) -> list[str]:
    foot = "\n".join(prose(rng, 1) for _ in range(12))
    return [f"{prose(rng, 3)}\n{foot}" for _ in range(count)]


def code(rng: random.Random, count: int) -> list[str]:
    head = "\n".join(f"# {prose(rng, 1)}" for _ in range(10))
    rows = set()
    while len(rows) < count:
        one, other, number = rng.choice(ENGLISH), rng.choice(ENGLISH), rng.randrange(2, 99)
        rows.add(f"{head}\n\ndef {one}_{other}_{number}({one}):\n    return {one} * {number} + len({other!r})\n")
    return sorted(rows)


def reports(rng: random.Random, count: int) -> list[str]:
    """Documents that differ in numbers and names alone."""
    return [
        f"{city} 지점의 지난달 매출은 {rng.randrange(100, 999)}억 원으로 집계되었다. "
        f"지점장 {rng.choice(NAMES)} 씨는 손님이 {rng.randrange(2, 99)}% 늘어난 까닭으로 새로 연 매장을 들었다. "
        "본사는 다음 분기에도 같은 흐름이 이어질 것으로 본다고 밝혔으며, 계절 상품의 비중을 조금씩 늘리고 "
        "오래된 진열대를 바꾸는 한편 직원 교육과 배송 체계를 손보아 손님이 기다리는 시간을 줄이겠다고 덧붙였다. "
        "자세한 내용은 분기 보고서에 실린다."
        for city in rng.sample(CITIES, min(count, len(CITIES)))
    ]


CHATS: dict[str, Callable[[random.Random, int], list[Chat]]] = {
    "a shared system prompt": system_prompt,
    "a passage, then the question, 2-3 a passage": passage_before,
    "a question, then its passage in lines": passage_after,
    "one instruction, other sentences to translate": translation,
    "one instruction, other records, one label": classification,
    "one instruction with a word that changes": slot_inside,
    "conversations with the same first turns": first_turns,
    "a conversation cut after each answer": growing,
    "one short answer to many questions": same_answer,
    "one question with many answers": same_question,
    "other numbers": sums,
    "other dates": dates,
    "possible and impossible": negations,
    "other people": people,
}
DOCUMENTS: dict[str, Callable[[random.Random, int], list[str]]] = {
    "the same licence paragraph": licences,
    "the same footer of many lines": footers,
    "code under one licence header": code,
    "reports with other numbers and names": reports,
}


def kinds(seed: int, count: int) -> Iterator[tuple[str, str, list]]:
    """Of each kind up to `count` distinct rows: its name, the dataset type, the rows (messages, or texts)."""
    for type_, makers in (("sft_pair", CHATS), ("pretrain_corpus", DOCUMENTS)):
        for name, make in makers.items():
            yield name, type_, make(random.Random(f"{seed} {name}"), count)
