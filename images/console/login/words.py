"""What the login page says, in Korean and in English."""

from collections.abc import Mapping

WORDS: Mapping[str, Mapping[str, str]] = {
    "ko": {
        "title": "로그인",
        "name": "사용자 이름",
        "password": "비밀번호",
        "submit": "로그인",
        "provider": "회사 계정으로 로그인",
        "or": "또는",
        "other": "English",
        "ended": "로그아웃되었습니다.",
        "wrong": "사용자 이름과 비밀번호가 일치하지 않습니다.",
        "wait": "잘못된 시도가 너무 많습니다. 잠시 후 다시 시도하세요.",
        "refused": "로그인할 수 없습니다.",
        "away": "로그인 서버가 응답하지 않습니다. 잠시 후 다시 시도하세요.",
        "nobody": "아직 사용자가 없습니다. 관리자가 `llmops user create`로 만들 수 있습니다.",
    },
    "en": {
        "title": "Log in",
        "name": "User name",
        "password": "Password",
        "submit": "Log in",
        "provider": "Log in with your company account",
        "or": "or",
        "other": "한국어",
        "ended": "You are logged out.",
        "wrong": "This name and this password do not belong together.",
        "wait": "Too many wrong tries. Try again in a while.",
        "refused": "You cannot be logged in.",
        "away": "The login server does not answer. Try again in a moment.",
        "nobody": "There is no user yet: an administrator makes one by `llmops user create`.",
    },
}


def language_of(asked: str | None, accepted: str) -> str:
    """`ko` or `en`: what was asked for, else the first of the two that an `Accept-Language` names, else English."""
    if asked in WORDS:
        return asked
    wishes: list[tuple[float, int, str]] = []
    for place, part in enumerate(accepted[:500].split(",")):
        tag, _, quality = part.strip().partition(";q=")
        try:
            weight = float(quality) if quality else 1.0
        except ValueError:
            continue
        wishes.append((-weight, place, tag.strip().lower().partition("-")[0]))
    return next((tag for weight, _, tag in sorted(wishes) if tag in WORDS and weight < 0), "en")
