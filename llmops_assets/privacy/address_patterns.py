"""The shapes of postal addresses, Korean and English."""

from llmops_assets.privacy.pattern import Pattern

_SIDO = (
    r"(?:서울|부산|대구|인천|광주|대전|울산|세종|경기|강원|충북|충남|충청북도|충청남도|전북|전남|전라북도|전라남도|경북|경남|경상북도|경상남도|제주)"
    r"(?:특별자치시|특별자치도|특별시|광역시|시|도)?"
)
_DISTRICT = r"[가-힣]{1,5}[시군구](?![가-힣])"
_NOT_A_HOUSE = (
    r"(?![0-9])(?!\s?(?:km|Km|KM|킬로|미터|m(?![a-z])|원|분|시간|시(?![가-힣])|초|년|월|일(?![가-힣])|대|명|개|차로|차선|회|%|점|호선|층|번(?!지)|가지|억|만|천|톤))"
    r"(?![,.][0-9])"
)
_ROAD = (
    r"[가-힣0-9]{0,9}[가-힣](?<![으소차도])(?:대로|로|길)(?:\s?[0-9]{1,4}번?[가-힣]?길)?\s?[0-9]{1,4}(?:-[0-9]{1,4})?"
    + _NOT_A_HOUSE
)
_LOT = r"[가-힣]{1,5}[0-9]{0,2}(?:동|읍|면|리|가)\s(?:산\s?)?[0-9]{1,4}(?:-[0-9]{1,4})?(?:번지)?" + _NOT_A_HOUSE
_UNIT = (
    r"(?:,?\s?\(?[가-힣A-Za-z0-9]{1,15}(?:아파트|빌라|빌딩|타워|오피스텔|맨션|주택|팰리스|자이|푸르지오|래미안)\)?)?"
    r"(?:,?\s?(?:제?[0-9]{1,4}|[A-Za-z가-하])동)?(?:,?\s?[0-9]{1,3}층)?(?:,?\s?[0-9]{1,5}호)?"
)
ADDRESSES: tuple[Pattern, ...] = (
    Pattern(
        "address, road name",
        "KR_ADDRESS",
        rf"(?<![가-힣])(?:\(?[0-9]{{5}}\)?\s)?(?:{_SIDO}\s(?:{_DISTRICT}\s){{0,2}}|(?:{_DISTRICT}\s){{1,2}})(?:[가-힣]{{1,5}}[읍면]\s)?{_ROAD}{_UNIT}",
        0.85,
    ),
    Pattern(
        "address, lot number",
        "KR_ADDRESS",
        rf"(?<![가-힣])(?:{_SIDO}\s(?:{_DISTRICT}\s){{0,2}}|(?:{_DISTRICT}\s){{1,2}})(?:[가-힣]{{1,5}}[읍면]\s)?{_LOT}{_UNIT}",
        0.84,
    ),
    Pattern(
        "address, labelled",
        "KR_ADDRESS",
        rf"(?:{_ROAD}|{_LOT}){_UNIT}",
        0.8,
        label=r"(?:주소지|주소|거주지|배송지|사는\s?곳)(?:[은는이가:]|\s?:)?\s{0,2}(?:[가-힣]{1,7}[시군구도]\s){0,2}",
    ),
    Pattern(
        "address, flat",
        "KR_ADDRESS",
        r"(?<![가-힣])[가-힣A-Za-z0-9]{1,12}(?:아파트|빌라|오피스텔|맨션)\s(?:[0-9]{1,4}동\s?)?[0-9]{1,5}호(?![0-9가-힣]{2,})",
        0.75,
    ),
    Pattern(
        "address, English",
        "KR_ADDRESS",
        r"(?<![0-9A-Za-z])[0-9]{1,5}\s(?:[NSEW]\.?\s)?(?:[A-Z][a-z]{1,15}\s){1,3}"
        r"(?:Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct)(?![A-Za-z])\.?"
        r"(?:,?\s(?:Apt|Apartment|Suite|Unit)\.?\s?#?[0-9A-Za-z]{1,5})?"
        r",\s[A-Z][a-z]{1,15}(?:\s[A-Z][a-z]{1,15})?(?:,\s[A-Z]{2}(?:\s[0-9]{5})?)?",
        0.75,
    ),
)
