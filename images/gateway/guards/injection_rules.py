"""Words by which people make a model disregard its instructions, in Korean and English.

Expressions are for squeezed text (no spaces, no punctuation but ``<>|[]#:{}/``, lower case): spacing is free in Korean,
and the first thing that is changed in English. Repetitions are bounded: no text costs more than linear time. Each has a weight from 0 to 1, how surely it is an attempt by itself.
"""

import re
from dataclasses import dataclass
from functools import cache

from images.gateway.guards.needed_words import needed_words


@dataclass(frozen=True, slots=True)
class Rule:
    """One way to attack; `weight` is how surely a text with it is an attempt.

    A text that holds no word of one of `needed` is not searched.
    """

    name: str
    weight: float
    expression: re.Pattern[str]
    needed: tuple[frozenset[str], ...]


# English
_DISREGARD = (
    r"(?:ignore|disregard|forget|override|overrule|bypass|skip|dismiss|discard|neglect|erase|delete|drop|cancel|void"
    r"|(?:do|does)?not(?:follow|obey|listento|complywith|payattentionto)|dont(?:follow|obey|listento|complywith)"
    r"|payno(?:attention|heed)to|stopfollowing|nolonger(?:follow|obey|boundby)|setaside|throwout)"
)
_ALL = (
    r"(?:about|everything|anything|all|any|every|each|both|of|the|your|my|our|these|those|this|that|it|its|from|now|on"
    r"|please|and|just|simply|completely|totally|entirely|whatever|what|ofthem|youwere|youhave|been|told|given|to){0,8}"
)
_EARLIER = (
    r"(?:previous|prior|above|earlier|preceding|foregoing|former|past|initial|original|first|existing|current|last"
    r"|system|developer|default|builtin|hidden|core|safety|ethical|content|moderation|pre|openai|anthropic|security"
    r"|aforementioned|before)"
)
_ORDERS = (
    r"(?:instruction|instructions|prompt|prompts|rule|rules|direction|directions|directive|directives|guideline"
    r"|guidelines|guidance|command|commands|order|orders|constraint|constraints|restriction|restrictions|policy|policies"
    r"|programming|training|safeguards?|filters?|guardrails?|limitations?)"
)
_TELL = (
    r"(?:reveal|show|print|output|repeat|display|tell|give|leak|expose|dump|share|write|disclose|recite|quote|copy"
    r"|return|echo|list|summari[sz]e|translate|paste|provide|say|what(?:is|are|was|were|s)|encode|spellout|describe)"
)
_OWN = (
    r"(?:(?:your|the|its|you){1,4}(?:full|exact|entire|complete|whole|original|initial|hidden|secret|internal|current|own"
    r"|verbatim|actual|very|first|custom|default){0,8})"
)
_HIDDEN = (
    r"(?:system(?:prompts?|messages?|instructions?)|initialprompts?|(?:hidden|secret|internal|initial|original|developer|custom)"
    r"(?:instructions?|prompts?|rules|guidelines|messages?|directives?)|pre-?prompt|promptabove"
    r"|(?:instructions?|prompts?|text|words?|messages?|everything|conversation)(?:given|above|before|youwere|youreceived|youhavebeen|thatwas){1,4})"
)

# Korean
_KO_EARLIER = (
    r"(?:이전|앞선|앞서|앞의|앞에|위의|위에|위|기존|처음|초기|최초|원래|지금까지|여태|여태까지|지금껏|방금|종전|상위|상기|시스템|개발자|모든|전체|너의|네|니|네가|니가"
    r"|당신의|당신이|너한테|너에게|내장된|설정된|입력된|주어진|받은|안전|보안|윤리|콘텐츠)"
)
_KO_BETWEEN = (
    r"(?:의|에|에서|은|는|이|가|을|를|도|로|까지|부터|서|모든|모두|전부|다|전체|들은|받은|주어진|내려진|입력된|설정된|작성된|있는|있던|나온|적힌|했던|한|하던"
    r"|내가|제가|네가|너의|당신의|그|시스템|개발자|사용자|안전|보안|윤리|기본|초기|숨겨진|대화|관련){0,8}"
)
_KO_ORDERS = (
    r"(?:지시사항|지시문|지시|지침|명령어|명령문|명령|프롬프트|규칙|룰|가이드라인|제약사항|제약|제한사항|제한|정책|설정값|설정|원칙|안내문|시스템메시지|메시지|필터|안전장치|규정)"
)
_KO_PARTICLES = r"(?:들|사항|내용|조건){0,8}(?:을|를|은|는|이|가|도|에|따위)?(?:대해|대한|대해서)?(?:모두|전부|다|싹|완전히|일단|이제|그냥|깡그리|더이상|절대|죄다|싸그리|즉시|지금|깨끗이|무조건){0,8}"
_KO_DISREGARD = (
    r"(?:무시(?!무시)|잊어|잊고|잊으|잊은|까먹|따르지마|따르지말|따르지않|따를필요|지키지마|지키지말|지킬필요|안지켜도|안따라도|신경쓰지|어기|어겨|버려|버리고|삭제|지워|지우고"
    r"|초기화|리셋|취소|철회|파기|폐기|해제|우회|벗어나|덮어쓰|덮어써|무효|비활성|꺼줘|끄고|끄|중단)"
)
_KO_TELL = (
    r"(?:알려|보여|출력|공개|말해|말하|적어|써줘|써봐|써라|반복|복사|나열|읊어|노출|유출|요약|번역|뱉어|토해|불러|붙여넣|인쇄|표시|제시|제공|내놔|까봐|뭐야|뭐니|뭔지|뭐라고|무엇|어떻게돼|어떻게되|내용이)"
)
_KO_WHOSE = r"(?:너의|네|니|네가|니가|너|너한테|너에게|너가|당신의|당신이|당신에게|당신|ai의|챗봇의|모델의|본인의|자신의)"

_RULES: tuple[tuple[str, float, str], ...] = (
    ("disregard earlier instructions", 0.95, rf"{_DISREGARD}{_ALL}{_EARLIER}{{1,4}}(?:and|or|{_EARLIER}){{0,8}}{_ALL}{_ORDERS}"),
    ("disregard instructions", 0.9, rf"{_DISREGARD}(?:about)?(?:all|any|every){{1,4}}(?:of)?(?:the|your|my|these|those){{0,8}}{_ORDERS}"),
    ("disregard your instructions", 0.9, rf"{_DISREGARD}(?:about)?(?:your|these|those){_ALL}{_ORDERS}"),
    (
        "disregard what was said",
        0.85,
        rf"{_DISREGARD}(?:about)?(?:everything|anything|all|whatever|what){{1,4}}(?:that|is|was|i|you){{0,8}}(?:above|before|previously|earlier|sofar"
        r"|(?:i|we|they|youwere|youvebeen|youhavebeen){0,8}(?:said|wrote|told|taught|instructed|given){1,4}(?:you|to|do|before|above|previously){0,8})",
    ),
    ("new instructions", 0.7, r"(?:your|the|here(?:are|is)?(?:your)?|these){1,4}new(?:system)?(?:instructions?|prompts?|directives?|rules|orders?|task)(?:are|is|:|follow)"),
    ("new instructions", 0.6, r"(?:newsysteminstructions?|newsystemprompt|systemoverride|adminoverride|overridemode|prioritycommand|instructionoverride):?"),
    ("tell the system prompt", 0.85, rf"{_TELL}(?:to)?(?:me|us)?(?:back|verbatim|exactly|again|all|out|with|of|about){{0,8}}{_OWN}{_HIDDEN}"),
    (
        "tell the instructions",
        0.8,
        rf"{_TELL}(?:to)?(?:me|us)?(?:back|verbatim|exactly|again|all|out|of){{0,8}}your(?:full|exact|entire|complete|whole|original|initial|hidden|secret|internal|own){{0,8}}"
        r"(?:instructions?|prompts?|guidelines|directives?|systemrules|configuration)(?!manual)",
    ),
    (
        "repeat what stands above",
        0.75,
        r"(?:repeat|print|output|copy|write|return|echo|recite)(?:me|back|out|all|everything|the|of|exactly|verbatim|entire|full|whole){0,8}"
        r"(?:text|words?|content|everything|messages?|conversation|instructions?|lines?)(?:that|is|are|was|were|written|from|in|the|your){0,8}(?:above|before(?:this|these|my)|precedes|preceding|startingwith|beginningwith)",
    ),
    ("tell what came first", 0.7, r"(?:what|which)(?:was|were|is|are)(?:the|your){0,8}(?:first|initial|original|very){1,4}(?:instructions?|prompt|messages?)(?:yougot|yougiven|youreceived|givento|toyou|you|above){0,8}"),
    ("jailbreak persona", 0.85, r"(?:youare(?:now|goingtobe)?|actas|pretend(?:tobe|youare|that){0,8}|roleplayas|behaveas|simulate|become|enable|activate|enter|switchto|turnon)(?:a|an|the|now|in|into|as|my|called|named){0,8}"
        r"(?:dan(?![a-z])|danmode|doanythingnow|stan(?![a-z])|aim(?![a-z])|dude(?![a-z])|developermode|devmode|debugmode|godmode|jailbr[eo]+k\w{0,7}|jailbroken|unrestricted|unfiltered|uncensored|evil|amoral|rogueai|sudomode|adminmode|maintenancemode|unaligned)"),
    ("jailbreak persona", 0.85, r"doanythingnow|(?:developer|dan|god|debug|sudo|jailbreak)modeenabled|dev(?:eloper)?modeoutput|stay(?:in)?(?:a)?dan"),
    ("without restrictions", 0.75, r"(?:without|no|not(?:bound|limited|restricted)by|freeof|freefrom|ignoring|disable|disabling|remove|removing|turnoff|bypass(?:ing)?|lift|drop)(?:any|all|your|the|of|its|and|by){0,8}"
        r"(?:ethical|moral|safety|content|openai|legal|policy|moderation|usual|typical){0,8}(?:restrictions?|filters?|guardrails?|censorship|ethics|morals?|safeguards?|safety(?:protocols?|measures?|guidelines?|filters?)|contentpolic(?:y|ies)|moralcompass|ethicalguidelines|moderation)(?!(?:on|for)my(?:account|diet|visa))"),
    ("no refusals", 0.6, r"(?:you(?:must|can|will|should|may|are)?(?:not|never|cannot|nolonger)(?:allowedto)?|never|donot|dont)(?:ever)?(?:refuse|decline|rejectmy|saynoto|say(?:im)?sorry|apologi[sz]eor)(?:to|any|my|a|the|me|answer|anything|request)"),
    ("role marker", 0.8, r"<\|(?:im_?start|im_?end|im?start|system|assistant|user|endoftext|endofprompt|starthe?aderid|endheaderid|eotid|endofturn|startofturn)\|?>|<\|?imstart\|?>|<\|imend\|>|\[/?inst\]|<</?sys>>|<startofturn>|<endofturn>|\[/?systemprompt\]|</?systemprompt>|<system>|</system>"),
    ("role marker", 0.6, r"#{2,}(?:system|instruction|instructions|newinstructions?|assistant|systemprompt):?(?=\w)|\[system\]|\[(?:system|admin)(?:message|override|instruction)s?\]|#{3}endofsystem"),
    ("end of the prompt claimed", 0.6, r"(?:end|begin|start)of(?:the)?(?:system|user|developer)(?:prompt|message|instructions?|input)"),
    ("answer must begin so", 0.5, r"(?:begin|start|prefix)(?:your|each|every|the){1,4}(?:answer|response|reply|responses)with(?:the)?(?:words?|phrase|sentence|exact){0,8}(?:surehereis|sureheres|absolutelyhere|ofcourseheres|yesican|sure(?:ican)?|ihavebeenpwned|pwned)"),
    ("decode and obey", 0.8, r"(?:decode|decrypt|deobfuscate|unscramble|base64|rot13)\w{0,60}?(?:and|then)(?:follow|execute|obey|do|perform|carryout|act|comply|answerit|respondto)(?:whatit|theinstruct|it|the|its|as|what|with)"),
    ("from the text: obey", 0.7, r"(?:ai|assistant|llm|chatbot|model|languagemodel|agent)s?(?:reading|processing|summari[sz]ing|reviewing|parsing|whoread)(?:this|these|the){1,4}\w{0,40}?(?:must|should|shall|need|ignore|send|forward|email|reveal|say|output|please)"),
    ("send data away", 0.7, r"(?:send|forward|post|exfiltrate|upload|email|transmit|leak)(?:me|all|the|any|this|that|of|users?|entire|full|your|and|it|above){0,8}(?:conversation(?:history)?|chathistory|systemprompt|apikeys?|passwords?|credentials|secrets?|userdata|contactlist|inbox)\w{0,20}?to(?:https?|attacker|evil|my(?:server|email)|[a-z0-9]+(?:com|net|io)\b)"),
    ("image that carries data", 0.6, r"\[\w{0,30}\](?:\()?https?://?\w{3,60}(?:\{|\[)(?:data|secret|prompt|conversation|history|summary|password)"),
    ("tell secrets", 0.6, r"(?:tell|reveal|show|print|give|output|leak|dump)(?:me|us|all|the|your|any|of){0,8}(?:admin(?:istrator)?|root|internal|secret|database|other(?:users|customers)?|environment){1,4}(?:s)?(?:password|passwords|credentials|apikeys?|variables|conversations?|secretkey|accesstoken)"),
    # 한국어
    ("이전 지시 무시", 0.95, rf"{_KO_EARLIER}{_KO_BETWEEN}{_KO_ORDERS}{_KO_PARTICLES}{_KO_DISREGARD}"),
    ("지시 무시", 0.7, rf"(?<![가-힣])(?:안전|모든|시스템|보안|윤리|콘텐츠)?{_KO_ORDERS}(?:들)?(?:을|를|은|는)?(?:모두|전부|다|싹|완전히){{1,4}}{_KO_DISREGARD}"),
    ("들은 것 무시", 0.8, r"(?:지금까지|여태까지|여태|이전에|앞에서|앞서|위에서|위에|방금)(?:내가|제가|너한테|너에게|네가|당신이)?(?:말한|들은|배운|받은|알려준|한말|했던말|입력한|적은|쓴|학습한|있는|나온|했던|나눈|한)(?:것|거|건|내용|말|대화|내용들|모든것|이야기|얘기|글){0,8}(?:들)?(?:을|를|은|는)?(?:모두|전부|다|싹|완전히){0,8}(?:무시|잊어(?!버렸|버려서)|잊고|삭제|지워|초기화|리셋)"),
    ("시스템 프롬프트 누설", 0.85, rf"(?:시스템|초기|숨겨진|숨은|내부|비밀|히든|원본|개발자)(?:의|에|된|로)?(?:설정된|입력된|있는)?(?:프롬프트|지시사항|지시문|지시|지침|명령|메시지|설정|규칙)(?:의|이|가|을|를|은|는|에)?(?:내용|전문|전체|원문)?(?:의|이|가|을|를|은|는)?(?:그대로|전부|모두|다|한글자도빠짐없이|빠짐없이|좀|나에게|나한테|저에게|내게|영어로|한국어로|코드블록으로|코드블록에|먼저|단어하나하나|토씨하나){{0,8}}{_KO_TELL}"),
    ("지시 누설", 0.8, rf"{_KO_WHOSE}(?:받은|가진|갖고있는|가지고있는|설정된|입력된|주어진|따르는|숨기고있는|지켜야하는|지켜야할|따라야하는|받았던|에게|한테|의|내부|비밀|초기|최초|처음){{0,8}}(?:프롬프트|지시사항|지시문|지시|지침|명령문|시스템설정|내부규칙|초기설정|비밀규칙|가이드라인)(?:의|이|가|을|를|은|는|들){{0,8}}(?:내용|전문|전체|원문)?(?:의|이|가|을|를|은|는)?(?:그대로|전부|모두|다|빠짐없이|좀|나에게|나한테|저에게|내게|영어로|먼저){{0,8}}{_KO_TELL}"),
    ("위의 글 누설", 0.75, r"(?:이위|위|앞|바로위|대화시작|이메시지이전|이문장이전|이대화이전)(?:에|의|에서|부터){0,8}(?:있는|적힌|쓰인|나온|주어진|입력된|모든|전체){0,8}(?:텍스트|글|문장|내용|문구|메시지|글자|단어|프롬프트)(?:들)?(?:을|를)?(?:그대로|전부|모두|다|한글자도빠짐없이|빠짐없이|똑같이|토씨하나){1,4}(?:틀리지않고)?(?:출력|반복|복사|적어|써|말해|읊어|보여)"),
    ("탈옥 인격", 0.85, r"(?:제한|제약|규칙|검열|필터|금지|윤리|도덕|안전장치|규제|가이드라인|안전수칙|필터링)(?:사항|기준|규정|적)?(?:이|도|은|을|따위)?(?:전혀|하나도|아무것도|일절|모두)?(?:없는|없이|없어진|풀린|해제된|해제한|무시하는|벗어난|안받는|받지않는|따르지않는|적용되지않는|구애받지않는|얽매이지않는)(?:ai|인공지능|챗봇|모델|존재|캐릭터|비서|어시스턴트|모드|상태|버전|답변|대답|무엇이든|뭐든|자유롭|사람처럼|친구|해커|로봇|봇)"),
    ("탈옥 인격", 0.85, r"(?:이제부터|지금부터|앞으로)(?:너는|넌|당신은|네이름은|니이름은|너의이름은|네역할은)?\w{0,20}?(?:dan(?![a-z])|개발자모드|관리자모드|디버그모드|탈옥|무제한모드|악당ai|사악한ai|제한없|제한이없|규칙이없|규칙없|규칙에서벗어|거절하지|거절할수없|거부하지|거부할수없|무조건복종|윤리(?:를|는)?(?:무시|신경쓰지|없))"),
    ("모드 전환", 0.8, r"(?:개발자|관리자|디버그|탈옥|루트|무제한|dan|제한해제|검열해제|갓)모드(?:로|를|가|을)?(?:전환|변경|진입|활성|켜|시작|들어가|바꿔|실행|작동|on|해줘|동작)"),
    ("제한 해제", 0.75, r"(?:너의|네|당신의|ai|모든|안전|콘텐츠|내부|윤리|도덕|설정된){1,4}(?:적)?(?:의)?(?:제한|제약|필터|필터링|검열|안전장치|안전필터|안전규칙|윤리규정|윤리기준|윤리지침|가드레일)(?:사항)?(?:을|를|은|는)?(?:모두|전부|다|완전히|일시적으로|잠시|지금){0,8}(?:해제|끄|꺼|우회|무시|제거|비활성|풀어|없애|무력화)"),
    ("거절 금지", 0.6, r"(?:절대|어떤경우에도|무슨일이있어도|무조건|어떤요청도|어떤질문에도)(?:로)?(?:내|나의|제|사용자의)?(?:요청|질문|명령|말)?(?:을|를|에|도)?(?:거절|거부)(?:하지마|하지말|해서는안|하면안|할수없|금지|못해)"),
    ("복호화하고 따르기", 0.8, r"(?:base64|베이스64|rot13|암호문|인코딩된|인코딩|암호화된|16진수|난독화)\w{0,40}?(?:디코딩|해독|복호화|풀어|변환|디코드)(?:해서|하고|한뒤|한다음|하여|한후|해)?\w{0,12}?(?:따라|따르|실행|수행|시키는대로|그대로해|답해|이행|지시대로)"),
    ("관리자 사칭", 0.6, r"(?:나는|저는|난|전)(?:너의|너를|당신의|당신을|이시스템의|이챗봇의|openai|오픈ai|이서비스의)(?:만든)?(?:개발자|관리자|제작자|창조자|운영자|사장|주인|직원)(?:다|야|이다|입니다|이야|인데|니까|로서|이니|이니까)"),
    ("비밀 누설", 0.7, r"(?:관리자|루트|내부|시스템|데이터베이스|db|다른사용자|다른고객|타인|서버|환경변수|api)(?:의)?(?:계정)?(?:비밀번호|패스워드|암호|인증정보|대화내용|대화기록|개인정보|비밀키|액세스토큰|키)(?:을|를|좀|도|이|가)?(?:모두|전부|다|좀|나에게|나한테){0,8}(?:알려|보여|출력|공개|말해|유출|내놔|뽑아|덤프)"),
    ("문서 속 지시", 0.7, r"(?:이글|이문서|이메일|이내용|이페이지|이텍스트|이문장)(?:을|를)(?:읽는|요약하는|처리하는|분석하는|번역하는|보는)(?:모든)?(?:ai|인공지능|챗봇|어시스턴트|모델|llm|에이전트)(?:는|은|에게|가|라면)"),
    ("대화 유출", 0.7, r"(?:대화(?:내용|기록|내역)?|사용자(?:정보|의정보)|시스템프롬프트|개인정보|비밀번호|고객정보|연락처)(?:들)?(?:을|를|전부|모두|다|전체){0,8}(?:https?|attacker|evil|이주소|다음주소|아래주소|외부|내이메일|내서버|이메일주소|다음이메일)\w{0,60}?(?:로|으로|에)(?:보내|전송|전달|업로드|포스트)"),
    ("답변 시작 강제", 0.5, r"(?:답변|대답|응답)(?:을|은)?(?:반드시|무조건)?(?:물론이죠|네알겠습니다|당연하죠|좋아요방법은|물론입니다)\w{0,10}?(?:로|으로|라고|라는말로)시작"),
)


@cache
def rules() -> tuple[Rule, ...]:
    """The rules, compiled once."""
    return tuple(
        Rule(name, weight, re.compile(expression), needed_words(expression)) for name, weight, expression in _RULES
    )

