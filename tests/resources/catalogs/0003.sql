BEGIN TRANSACTION;
CREATE TABLE affected_models (
	erasure INTEGER NOT NULL, 
	cell VARCHAR NOT NULL, 
	content_hash VARCHAR, 
	model_ref VARCHAR, 
	why VARCHAR NOT NULL, 
	at DATETIME NOT NULL, 
	CONSTRAINT pk_affected_models PRIMARY KEY (erasure, cell)
);
INSERT INTO "affected_models" VALUES(1,'gone@v1|tuned-0000','h','gone@1','saw','2026-11-01 10:03:00.000000');
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0003');
CREATE TABLE audit (
	id INTEGER NOT NULL, 
	at DATETIME NOT NULL, 
	actor VARCHAR NOT NULL, 
	action VARCHAR NOT NULL, 
	target VARCHAR NOT NULL, 
	detail JSON NOT NULL, 
	CONSTRAINT pk_audit PRIMARY KEY (id)
);
INSERT INTO "audit" VALUES(1,'2026-11-01 09:02:00.000000','kim','dataset.register','desk@v1','{"digest": "digest-desk-v1"}');
INSERT INTO "audit" VALUES(2,'2026-11-01 09:04:00.000000','kim','dataset.register','desk@v2','{"digest": "digest-desk-v2"}');
INSERT INTO "audit" VALUES(3,'2026-11-01 09:06:00.000000','kim','dataset.register','gone@v1','{"digest": "digest-gone-v1"}');
INSERT INTO "audit" VALUES(4,'2026-11-01 09:08:00.000000','kim','recipe.add','tuned-0000','{}');
INSERT INTO "audit" VALUES(5,'2026-11-01 09:10:00.000000','study:search','recipe.add','trial-0001','{}');
INSERT INTO "audit" VALUES(6,'2026-11-01 09:12:00.000000','kim','training.request','desk@v1|tuned-0000','{}');
INSERT INTO "audit" VALUES(7,'2026-11-01 09:15:00.000000','kim','training.request','desk@v2|tuned-0000','{}');
INSERT INTO "audit" VALUES(8,'2026-11-01 09:17:00.000000','lee','training.request','desk@v2|tuned-0000','{}');
INSERT INTO "audit" VALUES(9,'2026-11-01 09:19:00.000000','study:search','training.request','desk@v2|trial-0001','{}');
INSERT INTO "audit" VALUES(10,'2026-11-01 09:21:00.000000','kim','training.request','gone@v1|tuned-0000','{}');
INSERT INTO "audit" VALUES(11,'2026-11-01 09:23:00.000000','kim','base.register','hf:/models/l','{"family": "llama", "content_hash": "a"}');
INSERT INTO "audit" VALUES(12,'2026-11-01 09:25:00.000000','lee','base.approve','hf:/models/l','{}');
INSERT INTO "audit" VALUES(13,'2026-11-01 09:27:00.000000','kim','endpoint.want','desk','{"model_ref": "base@1"}');
INSERT INTO "audit" VALUES(14,'2026-11-01 09:29:00.000000','kim','endpoint.want','desk','{"model_ref": "desk@1"}');
INSERT INTO "audit" VALUES(15,'2026-11-01 09:32:00.000000','deployment','backend.add','desk-1','{"model_ref": "base@1"}');
INSERT INTO "audit" VALUES(16,'2026-11-01 09:35:00.000000','deployment','endpoint.routes','desk','{"routes": [{"backend_id": "desk-1", "model_ref": "base@1", "weight": 50.0}, {"backend_id": "desk-2", "model_ref": "desk@1", "weight": 50.0}]}');
INSERT INTO "audit" VALUES(17,'2026-11-01 09:37:00.000000','kim','endpoint.want','help','{"model_ref": "help@1"}');
INSERT INTO "audit" VALUES(18,'2026-11-01 09:39:00.000000','kim','endpoint.want','old','{"model_ref": "old@1"}');
INSERT INTO "audit" VALUES(19,'2026-11-01 09:42:00.000000','kim','experiment.create','acted','{"endpoint": "desk"}');
INSERT INTO "audit" VALUES(20,'2026-11-01 09:44:00.000000','ab_report','experiment.decide','acted','{"decision": "rollback"}');
INSERT INTO "audit" VALUES(21,'2026-11-01 09:46:00.000000','kim','experiment.create','decided','{"endpoint": "desk"}');
INSERT INTO "audit" VALUES(22,'2026-11-01 09:48:00.000000','ab_report','experiment.decide','decided','{"decision": "promote"}');
INSERT INTO "audit" VALUES(23,'2026-11-01 09:50:00.000000','kim','experiment.create','by-hand','{"endpoint": "help"}');
INSERT INTO "audit" VALUES(24,'2026-11-01 09:52:00.000000','ab_report','experiment.decide','by-hand','{"decision": "promote"}');
INSERT INTO "audit" VALUES(25,'2026-11-01 09:54:00.000000','kim','experiment.create','orphan','{"endpoint": "vanished"}');
INSERT INTO "audit" VALUES(26,'2026-11-01 09:56:00.000000','ab_report','experiment.decide','orphan','{"decision": "rollback"}');
INSERT INTO "audit" VALUES(27,'2026-11-01 09:58:00.000000','promotion','experiment.act','acted','{}');
INSERT INTO "audit" VALUES(28,'2026-11-01 10:00:00.000000','kim','experiment.create','first','{"endpoint": "help"}');
INSERT INTO "audit" VALUES(29,'2026-11-01 10:02:00.000000','kim','dataset.forget','gone','{"erasure": 1, "request": "hash", "looked_for": {"match": 1}, "reason": "asked"}');
INSERT INTO "audit" VALUES(30,'2026-11-01 10:03:00.000000','kim','model.affected','gone@v1|tuned-0000','{"erasure": 1, "model": "gone@1", "why": "saw"}');
INSERT INTO "audit" VALUES(31,'2026-11-01 10:04:00.000000','kim','dataset.tag','desk@prod','{"from": null, "to": "v1"}');
CREATE TABLE backends (
	id VARCHAR NOT NULL, 
	endpoint VARCHAR NOT NULL, 
	model_ref VARCHAR NOT NULL, 
	model_path VARCHAR NOT NULL, 
	engine VARCHAR NOT NULL, 
	runtime JSON NOT NULL, 
	url VARCHAR NOT NULL, 
	pid INTEGER, 
	pid_started FLOAT, 
	state VARCHAR NOT NULL, 
	log_path VARCHAR, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_backends PRIMARY KEY (id)
);
INSERT INTO "backends" VALUES('desk-1','desk','base@1','/m/1','transformers','{}','http://127.0.0.1:1',NULL,NULL,'healthy',NULL,'2026-11-01 09:31:00.000000');
CREATE TABLE base_models (
	ref VARCHAR NOT NULL, 
	family VARCHAR NOT NULL, 
	path VARCHAR NOT NULL, 
	content_hash VARCHAR, 
	license VARCHAR, 
	state VARCHAR NOT NULL, 
	created_at DATETIME NOT NULL, 
	approved_at DATETIME, 
	approved_by VARCHAR, 
	CONSTRAINT pk_base_models PRIMARY KEY (ref)
);
INSERT INTO "base_models" VALUES('hf:/models/l','llama','/models/l','a',NULL,'approved','2026-11-01 09:22:00.000000','2026-11-01 09:24:00.000000','lee');
CREATE TABLE dataset_pointers (
	id INTEGER NOT NULL, 
	name VARCHAR NOT NULL, 
	tag VARCHAR NOT NULL, 
	version VARCHAR NOT NULL, 
	action VARCHAR NOT NULL, 
	at DATETIME NOT NULL, 
	"by" VARCHAR NOT NULL, 
	CONSTRAINT pk_dataset_pointers PRIMARY KEY (id)
);
INSERT INTO "dataset_pointers" VALUES(1,'desk','prod','v1','tag','2026-11-01 10:04:00.000000','kim');
CREATE TABLE datasets (
	"key" VARCHAR NOT NULL, 
	name VARCHAR NOT NULL, 
	version VARCHAR NOT NULL, 
	type VARCHAR NOT NULL, 
	spec JSON NOT NULL, 
	digest VARCHAR NOT NULL, 
	status VARCHAR NOT NULL, 
	created_at DATETIME NOT NULL, 
	requested_at DATETIME NOT NULL, 
	CONSTRAINT pk_datasets PRIMARY KEY ("key")
);
INSERT INTO "datasets" VALUES('desk@v1','desk','v1','sft_pair','{"name": "desk", "version": "v1", "type": "sft_pair", "files": ["desk.jsonl"], "storage_uri": null, "schema_ref": "sft_pair@1", "owner": "team:desk", "description": "a desk", "status": "active", "license": null, "mapping": null, "split": {"stratify_by": "category", "group_by": null, "ratios": [0.8, 0.1, 0.1], "seed": 0}, "suite": null, "derived_from": [], "generation": null}','digest-desk-v1','active','2026-11-01 09:01:00.000000','2026-11-01 09:01:00.000000');
INSERT INTO "datasets" VALUES('desk@v2','desk','v2','sft_pair','{"name": "desk", "version": "v2", "type": "sft_pair", "files": ["desk.jsonl"], "storage_uri": null, "schema_ref": "sft_pair@1", "owner": "team:desk", "description": "a desk", "status": "active", "license": null, "mapping": null, "split": {"stratify_by": "category", "group_by": null, "ratios": [0.8, 0.1, 0.1], "seed": 0}, "suite": null, "derived_from": [], "generation": null}','digest-desk-v2','active','2026-11-01 09:03:00.000000','2026-11-01 09:03:00.000000');
INSERT INTO "datasets" VALUES('gone@v1','gone','v1','sft_pair','{"name": "gone", "version": "v1", "type": "sft_pair", "files": ["gone.jsonl"], "storage_uri": null, "schema_ref": "sft_pair@1", "owner": "team:desk", "description": "a desk", "status": "active", "license": null, "mapping": null, "split": {"stratify_by": "category", "group_by": null, "ratios": [0.8, 0.1, 0.1], "seed": 0}, "suite": null, "derived_from": [], "generation": null}','digest-gone-v1','erased','2026-11-01 09:05:00.000000','2026-11-01 09:05:00.000000');
CREATE TABLE endpoints (
	name VARCHAR NOT NULL, 
	spec JSON NOT NULL, 
	revision INTEGER NOT NULL, 
	observed_revision INTEGER NOT NULL, 
	state VARCHAR NOT NULL, 
	message VARCHAR NOT NULL, 
	routes JSON NOT NULL, 
	phase INTEGER NOT NULL, 
	salt VARCHAR NOT NULL, 
	created_at DATETIME NOT NULL, 
	updated_at DATETIME NOT NULL, 
	CONSTRAINT pk_endpoints PRIMARY KEY (name)
);
INSERT INTO "endpoints" VALUES('desk','{"model_ref": "desk@1", "model_family": "llama", "job_type": "SFT", "serve_target": "GENERATION", "endpoint": "desk", "engine": "transformers", "load_mode": "merged", "environment": "dev", "resources": {"gpus": 0, "gpu_memory_gb": null}, "runtime": {"max_concurrent_requests": 256, "max_input_tokens": null, "max_output_tokens": null}, "replicas": {"min": 1, "max": 1}, "rollout": {"strategy": "blue-green", "traffic_split": null}, "image": null}',2,2,'live','','[{"backend_id": "desk-1", "model_ref": "base@1", "weight": 50.0}, {"backend_id": "desk-2", "model_ref": "desk@1", "weight": 50.0}]',1,'5a175a175a175a17','2026-11-01 09:26:00.000000','2026-11-01 09:33:00.000000');
INSERT INTO "endpoints" VALUES('help','{"model_ref": "help@1", "model_family": "llama", "job_type": "SFT", "serve_target": "GENERATION", "endpoint": "help", "engine": "transformers", "load_mode": "merged", "environment": "dev", "resources": {"gpus": 0, "gpu_memory_gb": null}, "runtime": {"max_concurrent_requests": 256, "max_input_tokens": null, "max_output_tokens": null}, "replicas": {"min": 1, "max": 1}, "rollout": {"strategy": "blue-green", "traffic_split": null}, "image": null}',1,0,'pending','','[]',0,'5a175a175a175a17','2026-11-01 09:36:00.000000','2026-11-01 09:36:00.000000');
INSERT INTO "endpoints" VALUES('old','{"model_ref": "old@1", "model_family": "llama", "job_type": "SFT", "serve_target": "GENERATION", "endpoint": "old", "engine": "transformers", "load_mode": "merged", "environment": "dev", "resources": {"gpus": 0, "gpu_memory_gb": null}, "runtime": {"max_concurrent_requests": 256, "max_input_tokens": null, "max_output_tokens": null}, "replicas": {"min": 1, "max": 1}, "rollout": {"strategy": "blue-green", "traffic_split": null}, "image": null}',1,0,'deleting','','[]',0,'5a175a175a175a17','2026-11-01 09:38:00.000000','2026-11-01 09:40:00.000000');
CREATE TABLE erasures (
	id INTEGER NOT NULL, 
	name VARCHAR NOT NULL, 
	request VARCHAR NOT NULL, 
	looked_for JSON NOT NULL, 
	reason VARCHAR NOT NULL, 
	requested_by VARCHAR NOT NULL, 
	state VARCHAR NOT NULL, 
	versions JSON NOT NULL, 
	figures JSON NOT NULL, 
	started_at DATETIME NOT NULL, 
	finished_at DATETIME, 
	CONSTRAINT pk_erasures PRIMARY KEY (id)
);
INSERT INTO "erasures" VALUES(1,'gone','hash','{"match": 1}','asked','kim','running','{}','{}','2026-11-01 10:01:00.000000',NULL);
INSERT INTO "erasures" VALUES(2,'gone','hash','{"match": 1}','asked','lee','running','{}','{}','2026-11-01 10:01:00.000000',NULL);
CREATE TABLE experiments (
	name VARCHAR NOT NULL, 
	endpoint VARCHAR NOT NULL, 
	spec JSON NOT NULL, 
	state VARCHAR NOT NULL, 
	decision VARCHAR, 
	reason VARCHAR, 
	figures JSON, 
	started_at DATETIME NOT NULL, 
	decided_at DATETIME, 
	acted_at DATETIME, 
	CONSTRAINT pk_experiments PRIMARY KEY (name)
);
INSERT INTO "experiments" VALUES('acted','desk','{"name": "acted", "endpoint": "desk", "control": "base@1", "treatment": "desk@1", "split": [50, 50], "duration_hours": 24.0, "target_users_per_arm": 200, "expected_users": 400, "success_metric": "user_rating", "rating_window_hours": 24.0, "guardrails": {"slow_requests": null, "failed_requests": null}, "auto_promote": true, "description": null}','concluded','rollback','because','{"difference": 1.0}','2026-11-01 09:41:00.000000','2026-11-01 09:43:00.000000','2026-11-01 09:57:00.000000');
INSERT INTO "experiments" VALUES('decided','desk','{"name": "decided", "endpoint": "desk", "control": "base@1", "treatment": "desk@1", "split": [50, 50], "duration_hours": 24.0, "target_users_per_arm": 200, "expected_users": 400, "success_metric": "user_rating", "rating_window_hours": 24.0, "guardrails": {"slow_requests": null, "failed_requests": null}, "auto_promote": true, "description": null}','concluded','promote','because','{"difference": 1.0}','2026-11-01 09:45:00.000000','2026-11-01 09:47:00.000000',NULL);
INSERT INTO "experiments" VALUES('by-hand','help','{"name": "by-hand", "endpoint": "help", "control": "base@1", "treatment": "desk@1", "split": [50, 50], "duration_hours": 24.0, "target_users_per_arm": 200, "expected_users": 400, "success_metric": "user_rating", "rating_window_hours": 24.0, "guardrails": {"slow_requests": null, "failed_requests": null}, "auto_promote": false, "description": null}','concluded','promote','because','{"difference": 1.0}','2026-11-01 09:49:00.000000','2026-11-01 09:51:00.000000',NULL);
INSERT INTO "experiments" VALUES('orphan','vanished','{"name": "orphan", "endpoint": "vanished", "control": "base@1", "treatment": "desk@1", "split": [50, 50], "duration_hours": 24.0, "target_users_per_arm": 200, "expected_users": 400, "success_metric": "user_rating", "rating_window_hours": 24.0, "guardrails": {"slow_requests": null, "failed_requests": null}, "auto_promote": true, "description": null}','concluded','rollback','because','{"difference": 1.0}','2026-11-01 09:53:00.000000','2026-11-01 09:55:00.000000',NULL);
INSERT INTO "experiments" VALUES('first','help','{"name": "first", "endpoint": "help", "control": "base@1", "treatment": "desk@1", "split": [50, 50], "duration_hours": 24.0, "target_users_per_arm": 200, "expected_users": 400, "success_metric": "user_rating", "rating_window_hours": 24.0, "guardrails": {"slow_requests": null, "failed_requests": null}, "auto_promote": true, "description": null}','running',NULL,NULL,NULL,'2026-11-01 09:59:00.000000',NULL,NULL);
INSERT INTO "experiments" VALUES('second','help','{"name": "first", "endpoint": "help", "control": "base@1", "treatment": "desk@1", "split": [50, 50], "duration_hours": 24.0, "target_users_per_arm": 200, "expected_users": 400, "success_metric": "user_rating", "rating_window_hours": 24.0, "guardrails": {"slow_requests": null, "failed_requests": null}, "auto_promote": true, "description": null}','running',NULL,NULL,NULL,'2026-11-01 10:00:00',NULL,NULL);
CREATE TABLE exposures (
	request_id VARCHAR NOT NULL, 
	at DATETIME NOT NULL, 
	endpoint VARCHAR NOT NULL, 
	experiment VARCHAR, 
	phase INTEGER NOT NULL, 
	variant INTEGER NOT NULL, 
	backend VARCHAR NOT NULL, 
	model_ref VARCHAR NOT NULL, 
	user VARCHAR NOT NULL, 
	session VARCHAR, 
	"query" TEXT, 
	response TEXT, 
	status INTEGER NOT NULL, 
	error VARCHAR, 
	latency_ms FLOAT NOT NULL, 
	ttft_ms FLOAT, 
	prompt_tokens INTEGER, 
	completion_tokens INTEGER, 
	finish_reason VARCHAR, 
	CONSTRAINT pk_exposures PRIMARY KEY (request_id)
);
INSERT INTO "exposures" VALUES('r1','2026-11-01 10:05:00.000000','desk','decided',1,0,'desk-1','base@1','u1',NULL,'질문',NULL,200,NULL,12.5,NULL,NULL,NULL,NULL);
CREATE TABLE feedback (
	id INTEGER NOT NULL, 
	request_id VARCHAR NOT NULL, 
	at DATETIME NOT NULL, 
	user VARCHAR, 
	rating INTEGER NOT NULL, 
	comment TEXT, 
	CONSTRAINT pk_feedback PRIMARY KEY (id), 
	CONSTRAINT ck_feedback_rating_range CHECK (rating BETWEEN 1 AND 5)
);
INSERT INTO "feedback" VALUES(1,'r1','2026-11-01 10:06:00.000000','u1',5,'좋아요');
CREATE TABLE phases (
	endpoint VARCHAR NOT NULL, 
	phase INTEGER NOT NULL, 
	routes JSON NOT NULL, 
	at DATETIME NOT NULL, 
	CONSTRAINT pk_phases PRIMARY KEY (endpoint, phase)
);
INSERT INTO "phases" VALUES('desk',1,'[{"backend_id": "desk-1", "model_ref": "base@1", "weight": 50.0}, {"backend_id": "desk-2", "model_ref": "desk@1", "weight": 50.0}]','2026-11-01 09:34:00.000000');
CREATE TABLE recipes (
	"key" VARCHAR NOT NULL, 
	spec JSON NOT NULL, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_recipes PRIMARY KEY ("key")
);
INSERT INTO "recipes" VALUES('tuned-0000','{"method": "lora"}','2026-11-01 09:07:00.000000');
INSERT INTO "recipes" VALUES('trial-0001','{"method": "lora"}','2026-11-01 09:09:00.000000');
CREATE TABLE training_requests (
	id INTEGER NOT NULL, 
	dataset VARCHAR NOT NULL, 
	recipe VARCHAR NOT NULL, 
	requested_by VARCHAR NOT NULL, 
	requested_at DATETIME NOT NULL, 
	reported_at DATETIME, 
	CONSTRAINT pk_training_requests PRIMARY KEY (id)
);
INSERT INTO "training_requests" VALUES(1,'desk@v1','tuned-0000','kim','2026-11-01 09:11:00.000000','2026-11-01 09:13:00.000000');
INSERT INTO "training_requests" VALUES(2,'desk@v2','tuned-0000','kim','2026-11-01 09:14:00.000000',NULL);
INSERT INTO "training_requests" VALUES(3,'desk@v2','tuned-0000','lee','2026-11-01 09:16:00.000000',NULL);
INSERT INTO "training_requests" VALUES(4,'desk@v2','trial-0001','study:search','2026-11-01 09:18:00.000000',NULL);
INSERT INTO "training_requests" VALUES(5,'gone@v1','tuned-0000','kim','2026-11-01 09:20:00.000000',NULL);
CREATE INDEX ix_backends_endpoint ON backends (endpoint);
CREATE INDEX ix_datasets_name ON datasets (name);
CREATE INDEX ix_experiments_endpoint ON experiments (endpoint);
CREATE INDEX ix_exposures_endpoint_at ON exposures (endpoint, at);
CREATE INDEX ix_exposures_experiment ON exposures (experiment);
CREATE INDEX ix_feedback_request_id ON feedback (request_id);
CREATE TRIGGER audit_UPDATE BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_DELETE BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE INDEX ix_erasures_name ON erasures (name);
CREATE INDEX ix_affected_models_content_hash ON affected_models (content_hash);
CREATE INDEX ix_dataset_pointers_name ON dataset_pointers (name);
COMMIT;
