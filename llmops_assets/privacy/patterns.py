"""The shapes of personal data, Korean and international."""

from llmops_assets.privacy.address_patterns import ADDRESSES
from llmops_assets.privacy.checksums import (
    account_holds,
    bare_registration,
    birth_is_possible,
    brn_checksum_holds,
    card_holds,
    iban_holds,
    international,
    licence_holds,
    north_american,
    public_address,
    timestamp,
)
from llmops_assets.privacy.name_patterns import NAMES
from llmops_assets.privacy.pattern import Pattern
from llmops_assets.privacy.spelled_patterns import SPELLED

_START = r"(?<![0-9A-Za-z])(?<![0-9][-.])"
_END = r"(?![0-9])(?!-[0-9])"
_GAP = r"[^0-9\n\[\]]"
_NOT_A_PHONE = (
    r"(?:주문|접수|예약|예매|송장|운송장|등기|거래|승인|관리|영수증|문서|사건|상품|제품|모델|시리얼|일련|신청|민원|order|invoice|tracking"
    r"|ticket|serial|model|reference)\s?(?:번호|코드|넘버|no\.?|No\.?|number|id|ID|#)\s?(?:[은는이가을를:#]|is)?\s{0,2}"
)
_MACHINE = (
    r"(?:시리얼|커밋|해시|세션|노드|티켓|빌드|트랜잭션|체크섬|리비전|포트|이슈|로그|토큰|파드|배치|(?i:serial|commit|hash|session|node"
    r"|ticket|build|transaction|checksum|revision|port|issue|token|trace|span|uuid|pid|seq|offset))"
    r"\s?(?:번호|값|코드)?(?:[은는이가을를:=#]|\s?[:=#])?\s{0,2}"
)
"""What a machine numbers: digits in a row behind it are none of a person's."""
_RELEASE = (
    r"(?:(?<![A-Za-z])(?i:v|ver|version|release|build|kernel|firmware|patch|oid|section|sec|chapter|figure|fig|table|clause)\.?[:=]?\s?"
    r"|(?<![A-Za-z])(?i:nginx|apache|tomcat|java|jdk|jre|python|node|php|mysql|mariadb|postgres(?:ql)?|redis|openssl|openssh"
    r"|linux|windows|chrome|chromium|firefox|safari|android|ios|macos|ubuntu|debian|docker|kafka|spark|hadoop|gcc|cuda|driver)\s"
    r"|[A-Za-z0-9_]==?|(?<!/)(?<![A-Za-z][:])[A-Za-z0-9_.]/|[A-Za-z]-|[A-Za-z]@|[제§]"
    r"|(?:버전|릴리스|릴리즈|펌웨어|빌드|커널|패치|업데이트|업그레이드|배포판|드라이버|크롬|안드로이드|윈도우|리눅스)(?:(?!IP|ip|주소|아이피|접속|서버)[^0-9\n]){0,10}"
    r"|(?:섹션|그림|표|식|절|항목|조항|부록)\s?)"
)
"""What stands before four numbers with dots that are a version, or the number of a section."""
_REGION = r"(?:서울|부산|대구|인천|광주|대전|울산|세종|경기|강원|충북|충남|전북|전남|경북|경남|제주)"
_PLATE_LETTERS = "가나다라마거너더러머버서어저고노도로모보소오조구누두루무부수우주아바사자배하허호"
_PLATE_END = r"(?![0-9])(?!\s?(?:억|만|천|원|개|명|년|회|번|km|m|미터|킬로|[,.][0-9]))"
PATTERNS: tuple[Pattern, ...] = (
    Pattern(
        "registration number, labelled",
        "KR_RRN",
        rf"(?<![0-9])[0-9]{{6}}\s{{0,2}}[-~.·]?\s{{0,2}}[0-9]{{6,7}}{_END}",
        0.99,
        label=r"(?:주민\s?등록\s?번호|주민\s?번호|주민\s?등록|(?i:RRN|resident registration (?:number|no\.?)))"
        rf"{_GAP}{{0,12}}?",
    ),
    Pattern(
        "second half of a registration number, labelled",
        "KR_RRN",
        rf"(?<![0-9])[0-49][0-9]{{6}}{_END}",
        0.97,
        label=r"(?:(?:주민|외국인)\s?(?:등록)?\s?번호|주민\s?등록)\s?(?:의\s?)?(?:뒷?\s?자리|뒷\s?번호|뒤\s?(?:일곱|7)\s?자리)"
        rf"{_GAP}{{0,12}}?",
    ),
    Pattern(
        "foreigner registration number, labelled",
        "KR_FRN",
        rf"(?<![0-9])[0-9]{{6}}\s{{0,2}}[-~.·]?\s{{0,2}}[0-9]{{6,7}}{_END}",
        0.995,
        label=rf"(?:외국인\s?등록\s?번호|외국인\s?번호|(?i:alien registration (?:number|no\.?))){_GAP}{{0,12}}?",
    ),
    Pattern(
        "registration number",
        "KR_RRN",
        rf"{_START}[0-9]{{2}}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])(?:\s?-\s?|\s)[0-49][0-9]{{6}}{_END}",
        0.95,
        valid=birth_is_possible,
    ),
    Pattern(
        "registration number, partly starred",
        "KR_RRN",
        rf"{_START}[0-9]{{2}}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])\s?-\s?[0-9][*xX●]{{6}}",
        0.9,
        valid=birth_is_possible,
    ),
    Pattern(
        "registration number, digits only",
        "KR_RRN",
        rf"{_START}[0-9]{{2}}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])[1-4][0-9]{{6}}{_END}",
        0.85,
        unless=_NOT_A_PHONE,
        valid=bare_registration,
    ),
    Pattern(
        "foreigner registration number",
        "KR_FRN",
        rf"{_START}[0-9]{{2}}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])\s?-\s?[5-8][0-9]{{6}}{_END}",
        0.95,
        valid=birth_is_possible,
    ),
    Pattern(
        "mobile number",
        "PHONE_NUMBER",
        rf"{_START}(?:(?:\+82|0082|82)[-. ]?(?:\(0\)|0)?|\(?0)1[016789]\)?"
        rf"[-. ]{{0,3}}[0-9]{{3,4}}[-. ]{{1,3}}[0-9]{{4}}{_END}",
        0.8,
        unless=_NOT_A_PHONE,
    ),
    Pattern(
        "mobile number, digits in a row",
        "PHONE_NUMBER",
        rf"{_START}(?:(?:\+82|0082|82)[-. ]?(?:\(0\)|0)?|\(?0)1[016789]\)?[-. ]{{0,3}}[0-9]{{7,8}}{_END}",
        0.8,
        unless=f"(?:{_NOT_A_PHONE}|{_MACHINE})",
    ),
    Pattern(
        "landline number",
        "PHONE_NUMBER",
        rf"{_START}(?:\+82[-. ]?|\(?0)(?:2|3[1-3]|4[1-4]|5[1-5]|6[1-4]|70|50[2-9]?)"
        rf"(?:\)\s?|\s?-\s?|\.)[0-9]{{3,4}}(?:\s?-\s?|\.)[0-9]{{4}}{_END}",
        0.75,
        unless=_NOT_A_PHONE,
    ),
    Pattern(
        "phone number, labelled",
        "PHONE_NUMBER",
        rf"(?<![0-9])0[0-9]{{1,2}}[-. ]?[0-9]{{3,4}}[-. ]?[0-9]{{4}}{_END}",
        0.85,
        label=r"(?:전화|연락처|휴대폰|핸드폰|휴대전화|폰\s?번호|팩스|(?i:tel|phone|mobile|fax))[^0-9\n\[\]+(]{0,10}?",
    ),
    Pattern(
        "international number",
        "PHONE_NUMBER",
        rf"(?<![0-9A-Za-z+])\+(?!82)[1-9][0-9]{{0,2}}(?:[-. ]?\(?[0-9]{{1,4}}\)?){{2,5}}{_END}(?!\s?(?:원|%|달러|점))",
        0.7,
        valid=international,
    ),
    Pattern(
        "North American number",
        "PHONE_NUMBER",
        rf"{_START}(?:1[-. ])?(?:\([2-9][0-9]{{2}}\)\s?|[2-9][0-9]{{2}}[-.])[2-9][0-9]{{2}}[-.][0-9]{{4}}{_END}",
        0.7,
        unless=_NOT_A_PHONE,
        valid=north_american,
    ),
    Pattern(
        "e-mail address",
        "EMAIL_ADDRESS",
        r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,6}[A-Za-z]{2,24}",
        0.95,
    ),
    Pattern(
        "card number",
        "CREDIT_CARD",
        rf"{_START}(?:(?:[0-9]{{4}}[- ]){{3}}[0-9]{{4}}|3[47][0-9]{{2}}[- ][0-9]{{6}}[- ][0-9]{{5}}){_END}",
        0.9,
        unless=_NOT_A_PHONE,
        valid=card_holds,
    ),
    Pattern(
        "card number, digits in a row",
        "CREDIT_CARD",
        rf"{_START}[0-9]{{13,19}}{_END}",
        0.9,
        unless=f"(?:{_NOT_A_PHONE}|{_MACHINE})",
        valid=card_holds,
    ),
    Pattern(
        "card number, labelled",
        "CREDIT_CARD",
        rf"(?<![0-9])(?:[0-9]{{4}}[- ]?){{3}}[0-9]{{3,4}}{_END}",
        0.92,
        label=rf"(?:카드|(?i:card)){_GAP}{{0,14}}?",
        valid=lambda text: not timestamp(text),
    ),
    Pattern(
        "account number, labelled",
        "KR_ACCOUNT",
        rf"(?<![0-9])(?:[0-9]{{2,6}}-[0-9]{{2,6}}(?:-[0-9]{{1,7}}){{1,2}}|[0-9]{{3,6}}-[0-9]{{6,9}}|[0-9]{{10,14}}){_END}(?!\s?(?:원|건|명))",
        0.86,
        label=rf"(?:계좌|통장|예금주|은행|뱅크|농협|수협|신협|새마을금고|우체국|(?i:account)){_GAP}{{0,15}}?",
        valid=account_holds,
    ),
    Pattern(
        "account number after a bank's short name",
        "KR_ACCOUNT",
        rf"(?<![0-9])[0-9]{{2,6}}-[0-9]{{2,6}}(?:-[0-9]{{1,7}}){{1,2}}{_END}",
        0.8,
        label=r"(?:국민|신한|우리|하나|기업|카카오|토스|KB|NH|IBK|SC제일|씨티)[ :]{0,2}",
        valid=account_holds,
    ),
    Pattern(
        "passport number, labelled",
        "KR_PASSPORT",
        # In groups, as people read it out (M 1234 5678), only behind capitals: "passport in 2024 2025" is none.
        r"(?<![A-Za-z0-9])(?:[A-Za-z]{1,2}[0-9]{6,8}|[A-Za-z][0-9]{3}[A-Za-z][0-9]{4}"
        r"|[A-Z]{1,2}[ -]?(?:[0-9]{6,8}|[0-9]{3,4}[ -][0-9]{3,4}|[0-9]{2,3}[ -][0-9]{2,3}[ -][0-9]{2,3})"
        r"|[A-Z][ -]?[0-9]{3}[ -]?[A-Z][ -]?[0-9]{4})(?![A-Za-z0-9])",
        0.95,
        label=r"(?:여권\s?(?:번호)?|(?i:passport(?: (?:number|no\.?))?(?: is)?))[^0-9A-Za-z\n\[\]]{0,10}?",
    ),
    Pattern(
        "passport number",
        "KR_PASSPORT",
        r"(?<![A-Za-z0-9-])(?:[MSRODG][0-9]{3}[A-Z][0-9]{4}|[MSR][0-9]{8})(?![A-Za-z0-9-])",
        0.7,
        unless=_NOT_A_PHONE,
    ),
    Pattern(
        "driving licence",
        "KR_DRIVER_LICENSE",
        rf"{_START}(?:(?:1[1-9]|2[0-8])-[0-9]{{2}}-[0-9]{{6}}-[0-9]{{2}}|{_REGION}\s?[0-9]{{2}}\s?-\s?[0-9]{{6}}\s?-\s?[0-9]{{2}}){_END}",
        0.93,
    ),
    Pattern(
        "driving licence, labelled",
        "KR_DRIVER_LICENSE",
        rf"(?<![0-9])[0-9]{{2}}[- ]?[0-9]{{2}}[- ]?[0-9]{{6}}[- ]?[0-9]{{2}}{_END}",
        0.94,
        label=rf"(?:면허\s?(?:증)?\s?번호|(?i:driver'?s?'? licen[cs]e (?:number|no\.?))){_GAP}{{0,8}}?",
        valid=licence_holds,
    ),
    Pattern(
        "business number",
        "KR_BRN",
        rf"{_START}[0-9]{{3}}-[0-9]{{2}}-[0-9]{{5}}{_END}",
        0.8,
        unless=_NOT_A_PHONE,
        valid=brn_checksum_holds,
    ),
    Pattern(
        "business number, labelled",
        "KR_BRN",
        rf"(?<![0-9])[0-9]{{3}}[- ]?[0-9]{{2}}[- ]?[0-9]{{5}}{_END}",
        0.94,
        label=rf"사업자\s?(?:등록)?\s?(?:번호)?{_GAP}{{0,10}}?",
    ),
    Pattern(
        "number plate",
        "KR_PLATE",
        rf"(?<![0-9A-Za-z가-힣])(?<![0-9][-.,])(?:{_REGION}\s?)?[0-9]{{2,3}}(?:[{_PLATE_LETTERS}]|[가나다라마거너더러머버서어저고노모보소오구누두루무부수우아바사자배하허]\s)[0-9]{{4}}{_PLATE_END}",
        0.85,
    ),
    Pattern(
        "number plate, labelled",
        "KR_PLATE",
        rf"(?<![0-9])(?:{_REGION}\s?)?[0-9]{{2,3}}\s?[{_PLATE_LETTERS}]\s?[0-9]{{4}}(?![0-9])",
        0.9,
        label=rf"(?:차량|번호판|차\s?번호|차번|(?i:plate)){_GAP}{{0,12}}?",
    ),
    *ADDRESSES,
    Pattern(
        "social security number",
        "US_SSN",
        rf"{_START}(?!000|666|9)[0-9]{{3}}-(?!00)[0-9]{{2}}-(?!0000)[0-9]{{4}}{_END}",
        0.8,
        unless=_NOT_A_PHONE,
    ),
    Pattern(
        "IBAN",
        "IBAN_CODE",
        r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?:\s?[A-Z0-9]{4}){2,7}(?:\s?[A-Z0-9]{1,4})?(?![A-Za-z0-9])",
        0.95,
        valid=iban_holds,
    ),
    Pattern(
        "IP address",
        "IP_ADDRESS",
        r"(?<![0-9A-Za-z.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![0-9])(?!\.[0-9])(?!-[A-Za-z])"
        r"(?!\s?(?:버전|릴리스|릴리즈|판)(?![가-힣]{2}))(?![절조항장](?:[은는이가을를의에과와]|에서|\s|[,.)]|$))",
        0.7,
        # What is spoken of between the word and the number may be an address all the same.
        unless=_RELEASE,
        valid=public_address,
    ),
    Pattern(
        "IP address, version 6",
        "IP_ADDRESS",
        r"(?<![0-9A-Za-z:.])(?:[0-9A-Fa-f]{1,4}:){2,7}(?::?[0-9A-Fa-f]{1,4}){0,6}(?![0-9A-Za-z:])",
        0.7,
        valid=public_address,
        numeric=False,
        anywhere=(":",),
    ),
    *NAMES,
    *SPELLED,
)
