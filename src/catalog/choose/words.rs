//! Which words speak for which type of model, and which rule out what follows or precedes them.
//!
//! All is in lower case, without accents, with spaces for hyphens. `*` at a word's end or beginning stands for any
//! letters. Words of Chinese, Japanese and Korean are found anywhere, others as whole words.

use Points::{Hints, Names, Suits, Uses};

use crate::flow::ModelType;

/// How strongly a word speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Points {
    /// It may be meant so.
    Hints,
    /// It suits a type, and others as well.
    Suits,
    /// It says what the model is used for.
    Uses,
    /// It names the kind of model.
    Names,
}

/// What a word speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// A type of model.
    Type(ModelType),
    /// A task for other programs.
    Outside,
    /// Nothing: it only keeps a part of it from being taken for something.
    Nothing,
}

/// Words of one topic and strength.
pub struct Group {
    pub topic: Topic,
    pub points: Points,
    pub words: &'static [&'static str],
}

const DENSE: Topic = Topic::Type(ModelType::SentenceTransformer);
const PAIRS: Topic = Topic::Type(ModelType::CrossEncoder);
const SPARSE: Topic = Topic::Type(ModelType::SparseEncoder);
const LATE: Topic = Topic::Type(ModelType::MultiVectorEncoder);

const fn group(topic: Topic, points: Points, words: &'static [&'static str]) -> Group {
    Group { topic, points, words }
}

#[rustfmt::skip]
pub const GROUPS: &[Group] = &[
    group(DENSE, Names, &[
        "embedding model*", "embedder*", "bi encoder*", "biencoder*", "sentencetransformer", "sentence transformer",
        "sentence embedding*", "text embedding*", "document embedding*", "dense embedding*", "dense retriev*",
        "dense vector*", "dense encoder*", "dense", "sentence encoder*", "text encoder*", "sentence vector*", "static embedding*",
        "static model*", "model2vec", "two tower*", "dual encoder*", "siamese", "sbert", "vector search", "matryoshka",
        "tsdae", "simcse",
        // German, Dutch
        "embedding modell*", "embeddingmodel*", "embeddings modell*", "satzembedding*", "satz embedding*", "vektorsuche",
        "vectorzoek*", "vector zoeken",
        // French, Spanish, Portuguese, Italian
        "modele d embedding*", "modele de plongement*", "recherche vectorielle", "double encodeur", "modelo de embedding*",
        "modelo de incrustacion*", "busqueda vectorial", "busca vetorial", "modello di embedding*", "modelli di embedding*",
        "ricerca vettoriale",
        // Russian, Chinese, Japanese, Korean
        "модел* эмбеддинг*", "векторн* поиск*", "би энкодер*", "биэнкодер*", "嵌入模型", "向量模型", "向量检索", "向量搜索",
        "句向量", "双编码器", "双塔", "埋め込みモデル", "ベクトル検索", "バイエンコーダ", "文埋め込み", "임베딩 모델", "임베딩모델",
        "벡터 검색", "바이 인코더", "문장 임베딩",
    ]),
    group(DENSE, Uses, &[
        "semantic search", "how similar*", "similarity search", "similarit*", "similar texts", "similar sentences", "cluster*",
        "duplicat*", "near duplicat*", "dedup*", "de dup*", "paraphras*", "nearest neighbor*", "nearest neighbour*", "knn",
        "faiss", "qdrant", "milvus", "pinecone", "weaviate", "pgvector", "chroma", "single vector*", "one vector per text",
        "retriever*", "sts", "sts b", "stsb", "same meaning", "like meaning", "mean the same", "means the same",
        "by meaning", "in meaning", "of meaning", "closest", "near each other", "same story", "say the same", "says the same", "other words",
        "same thing", "resembl*", "plagiari*", "topic model*", "intent classification", "intent detection", "few shot classification", "setfit",
        "parallel sentences", "parallel data", "translated sentences", "bitext*", "cross lingual*", "pooled output",
        "all minilm*", "all mpnet*", "multilingual e5*", "e5 small*", "e5 base*", "e5 large*", "bge small*", "bge base*",
        "bge large*", "bge m3", "gte modernbert*", "paraphrase multilingual*", "cpu fast", "recommend*",
        // German, Dutch
        "semantisch* suche", "ahnlich*", "dublette*", "duplikat*", "doppelte*", "gruppier*", "nach bedeutung",
        "semantisch zoek*", "gelijkenis*", "soortgelijk*", "dubbele*", "groeperen",
        // French, Spanish, Portuguese, Italian
        "recherche semantique", "similaire*", "doublon*", "regrouper*", "meme sens", "similarite*", "busqueda semantica", "similitud*",
        "semejanza*", "parecid*", "agrupar*", "agrupamiento*", "duplicad*", "busca semantica", "pesquisa semantica", "similaridade*",
        "semelhan*", "agrupamento*", "ricerca semantica", "simili", "somiglianza*", "duplicati", "raggruppa*",
        // Russian, Chinese, Japanese, Korean
        "семантическ* поиск*", "эмбеддинг*", "кластериз*", "дубликат*", "схож*", "похож*", "сходств*", "по смыслу",
        "语义搜索", "语义检索", "聚类", "去重", "相似度", "相似", "重复", "意味検索", "セマンティック検索", "類似", "クラスタリング",
        "重複", "言い換え", "시맨틱 검색", "의미 검색", "의미 기반 검색", "유사도", "유사", "중복", "군집", "클러스터링",
    ]),
    group(DENSE, Hints, &[
        "embedding*", "embed", "embeds", "retriev*", "rag", "matching", "match", "cosine", "text classification",
        "asked twice", "vector database", "vector store", "vectors", "vector", "topics", "plongement*", "incrustacion*",
        "vektor*", "嵌入", "向量", "埋め込み", "임베딩", "벡터",
    ]),
    group(PAIRS, Names, &[
        "cross encoder*", "crossencoder*", "reranker*", "re ranker*", "ranker*", "lambdaloss", "listnet*", "listmle*",
        "ranknet*", "lambdarank", "lambdamart", "ms marco minilm*", "monobert", "monot5",
        "encodeur croise*", "codificador cruzado", "кросс энкодер*", "кроссэнкодер*", "реранкер*", "ранкер*", "交叉编码器",
        "重排序模型", "重排模型", "重排器", "リランカー", "クロスエンコーダ", "리랭커", "크로스 인코더",
    ]),
    group(PAIRS, Uses, &[
        "rerank*", "re rank*", "two stage*", "second stage", "learn to rank", "learning to rank", "pair classif*",
        "classif* pairs", "classif* of pairs", "classif* sentence pairs", "classif* text pairs", "score pairs",
        "scores pairs", "scoring pairs", "answer selection", "order of search", "order of our search", "order of the search",
        "order of hits", "order of the hits", "order of results", "order of the results", "order of our results",
        "orders search", "order search", "orders the hits", "order the hits", "order the results", "reorder*",
        "sort the hits", "sort the results", "sorts search", "rank the hits", "rank the results", "rank search",
        "rank passages", "rank documents", "rank the documents", "rank the passages", "how relevant",
        "more precisely", "best comes first", "best first", "candidate answer*", "full cross attention", "jointly", "passage together", "both texts", "texts together", "pairs with class*",
        // German, Dutch
        "neu ordnet", "neu ordnen", "neu sortier*", "umsortier*", "neuordn*", "umordn*", "nachsortier*", "textpaare klassif*",
        "satzpaare klassif*", "herorden*", "herrangschik*", "opnieuw rangschik*",
        // French, Spanish, Portuguese, Italian
        "reordonn*", "reclass*", "reordenar*", "reordenacion", "reordenamiento", "reordenac*", "reclasific*", "reranque*",
        "riordin*",
        // Russian, Chinese, Japanese, Korean
        "переупоряд*", "переранж*", "классификац* пар", "重排序", "重新排序", "重排", "精排", "並べ替え", "並び替え", "リランキング", "再ランキング", "재정렬",
        "재순위", "리랭킹",
    ]),
    group(PAIRS, Suits, &[
        "nli", "*nli", "premise*", "hypothes*", "good answer", "each pair", "natural language inference", "entail*", "contradict*", "fact verification", "fact check*", "support* the claim",
        "claim and evidence", "relevance judg*", "graded judg*", "widerspruch*", "textpaare", "satzpaare", "implication textuelle", "paires de phrases", "pares de frases",
        "coppie di frasi", "contradic*", "contraddi*", "zinsparen",
        "自然语言推理", "自然言語推論", "자연어 추론",
    ]),
    group(PAIRS, Hints, &["ranking", "relevance", "click data", "sentence pairs", "text pairs"]),
    group(SPARSE, Names, &[
        "splade*", "elser", "sparse encoder*", "sparseencoder*", "sparse embedding*", "sparse vector*", "sparse retriev*",
        "sparse search", "learned sparse", "neural sparse", "sparse representation*", "sparse lexical", "sparse model*",
        "dunn besetzt*", "ijle vector*", "encodeur* creux", "vecteur* creux", "representation* creuse*", "parcimonieu*",
        "vector* dispers*", "vetor* esparso*", "representac* esparsa*", "vettor* spars*", "разреженн*", "稀疏编码器", "稀疏向量",
        "稀疏检索", "スパース", "疎ベクトル", "희소",
    ]),
    group(SPARSE, Uses, &[
        "sparse", "inverted ind*", "term expansion*", "expansion of terms", "term weight*", "weights of terms",
        "weights of words", "word weights", "vocabulary terms", "over the vocabulary", "words of the vocabulary",
        "active dimensions", "flops", "posting list*", "vocabulary sized", "mostly zeros", "mostly zero", "invertiert* index*", "omgekeerde index", "geinverteerde index", "index inverse*",
        "indice* invertid*", "indice* invertit*", "инвертированн* индекс*", "обратн* индекс*", "倒排索引", "倒排", "稀疏",
        "転置インデックス", "역색인",
    ]),
    group(SPARSE, Hints, &["lucene"]),
    group(LATE, Names, &[
        "*colbert*", "late interaction*", "maxsim*", "maximum similarit*", "ragatouille", "embedding a token", "embedding per token", "embeddings per token", "multi vector*", "multivector*", "pylate*", "plaid", "xtr",
        "spate* interaktion", "interaction* tardive*", "interaccion tardia", "interacao tardia", "interazione tardiva",
        "late interactie", "поздн* взаимодейств*", "延迟交互", "后期交互", "晚期交互", "多向量", "遅延相互作用", "レイトインタラクション",
        "マルチベクトル", "지연 상호작용", "다중 벡터",
    ]),
    group(LATE, Uses, &[
        "token level", "token wise", "token embedding*", "token s embedding*", "every token", "each token", "per token", "vector per token",
        "vector a token", "query token*", "document token*", "token vector*", "vectors of tokens", "vector for each token", "vector for every token", "vector for each word*", "vector per word*",
    ]),
    group(Topic::Outside, Names, &[
        "image*", "photo*", "picture*", "video*", "audio", "speech", "voice", "ocr", "colpali*", "colqwen*", "clip", "vision",
        "multimodal", "text to image", "stable diffusion", "object detection", "named entit*", "ner", "token classification",
        "part of speech", "time series", "forecast*", "bilder*", "spracherkennung", "spraakherkenning", "reconnaissance vocale",
        "reconocimiento de voz", "imagen*", "imagem", "imagens", "immagin*", "afbeelding*", "изображени*", "распознаван* речи",
        "语音", "图像", "图片", "音声", "画像", "음성", "이미지",
    ]),
    group(Topic::Outside, Uses, &[
        "llm*", "llama*", "gpt*", "mistral", "chatbot*", "chat", "language model*", "instruction tun*", "instruct tun*",
        "text generation", "generat*", "summar*", "translat*", "prices", "regression", "tabular", "question generation", "whisper", "extract*",
        "sprachmodell*", "ubersetz*", "zusammenfassung*", "resumer", "resumen", "riassu*", "traduire*", "traduc*", "traduz*",
        "tradurre", "vertaal*", "vertalen", "taalmodel*", "modele de langage", "modelo de lenguaje", "modelo de linguagem",
        "языков* модел*", "перевод*", "翻译", "聊天机器人", "大语言模型", "翻訳", "要約", "번역", "요약", "챗봇",
    ]),
    group(Topic::Nothing, Hints, &[
        "sparse data", "sparse training data", "sparse labels", "sparse label*", "image caption*", "caption*", "audio transcript*",
        "video transcript*", "transcript*", "speech transcript*", "product image text*", "sentence transformers", "lora rank",
    ]),
];

/// Before a word, within the same clause: it is not wanted.
#[rustfmt::skip]
pub const NOT_BEFORE: &[&str] = &[
    "not", "no", "non", "never", "don t", "do not", "dont", "doesn t", "without", "neither", "nor", "instead of",
    "rather than", "other than", "avoid", "except", "kein", "keine", "keinen", "keiner", "keines", "keinem", "nicht", "statt",
    "anstatt", "anstelle", "ohne", "weder", "pas", "sans", "au lieu", "plutot que", "plutot qu", "ni", "sin", "en vez",
    "en lugar", "nao", "sem", "em vez", "senza", "invece di", "anziche", "niet", "geen", "zonder", "in plaats", "не", "вместо",
    "без", "ни",
];

/// After those they say nothing: `not only`.
pub const NOT_BUT_MORE: &[&str] = &["only", "just", "nur", "seulement", "solo", "so", "soltanto", "alleen", "только"];

/// After a word, at once: it is not wanted.
pub const NOT_AFTER: &[&str] = &[
    "is not",
    "isn t",
    "are not",
    "not needed",
    "is too slow",
    "is too expensive",
    "ist nicht",
    "n est pas",
    "не нужен",
];

/// Before a word, within the same clause: it is there already, or serves only to make the data.
#[rustfmt::skip]
pub const MENTIONED_BEFORE: &[&str] = &[
    "already have", "have already", "already has", "already use", "existing", "on top of", "scored by", "labelled by",
    "labeled by", "judged by", "found by", "retrieved by", "mined with", "mined by", "results of", "results from", "hits of",
    "hits from", "candidates from", "candidates of", "output of", "distilled from", "from our", "after our", "after the",
    "taught by", "wir haben schon", "haben bereits", "schon einen", "bereits einen", "deja", "ya tenemos", "ja temos",
    "abbiamo gia", "hebben al", "уже есть",
];

/// After a word, at once: as above.
pub const MENTIONED_AFTER: &[&str] = &[
    "teacher",
    "as teacher",
    "as the teacher",
    "as a teacher",
    "works well",
    "works fine",
    "is already",
    "als lehrer",
    "comme professeur",
    "scores as labels",
];

/// A verb that makes one model out of another, and the word before the new one: what stands between is the old one.
pub const MADE_OF: (&[&str], &[&str]) =
    (&["distil*", "distill*", "convert*", "compress*", "turn"], &["into", "in", "en", "em"]);

/// Between two words that both are wanted.
pub const JOINED: &[&str] =
    &["and", "or", "und", "oder", "et", "ou", "y", "o", "e", "en", "of", "и", "или", "plus", "vs", "versus"];
/// What may stand beside those.
pub const ARTICLES: &[&str] =
    &["a", "an", "the", "one", "ein", "einen", "eine", "un", "une", "una", "um", "uma", "een"];

/// Words that begin a new clause.
#[rustfmt::skip]
pub const CLAUSES: &[&str] =
    &["but", "however", "sondern", "aber", "mais", "sino", "pero", "mas", "bensi", "maar", "но", "а", "now", "jetzt", "because", "since"];

/// Before a word of Chinese, Japanese or Korean, at most a few letters away.
pub const NOT_BEFORE_CJK: &[&str] = &["不要", "不是", "不用", "不需要", "无需", "没有", "而非", "别用"];
/// After one, at once.
pub const NOT_AFTER_CJK: &[&str] = &[
    "ではなく",
    "じゃなく",
    "なしで",
    "を使わず",
    "の代わりに",
    "は不要",
    "이 아니라",
    "가 아니라",
    "이 아닌",
    "가 아닌",
    "아닌",
    "없이",
    "대신",
    "모델이 아니라",
    "之外",
    "以外",
];
