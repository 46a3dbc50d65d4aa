BEGIN TRANSACTION;
CREATE TABLE files (
    file_id TEXT NOT NULL,
    file_version INTEGER NOT NULL,
    file_name TEXT NOT NULL UNIQUE,
    format TEXT NOT NULL,
    file_size INTEGER NOT NULL,
    checksum TEXT,
    checksum_plugin TEXT,
    ingestion_date TEXT NOT NULL,
    io_time REAL NOT NULL,
    object TEXT NOT NULL UNIQUE,
    PRIMARY KEY (file_id, file_version)
) WITHOUT ROWID;
INSERT INTO "files" VALUES('a.bin',1,'EmbeddedArchive/2026-11-21/1/a.bin','application/octet-stream',3,'2053932785','crc32','2026-11-21T11:12:29.928',4.06221599951095413416e-03,'4f/4fef9cffec13baaa0b8bab5ae61005c5ee8bdb78-3e1f5cafd15f4346894b7a3aaafe678b');
INSERT INTO "files" VALUES('a.bin',2,'EmbeddedArchive/2026-11-21/2/a.bin','application/octet-stream',9,'3254946597','crc32','2026-11-21T11:12:30.003',2.75575799969374202191e-03,'4f/4fef9cffec13baaa0b8bab5ae61005c5ee8bdb78-e882904bca7141aaa118a5757f20659e');
INSERT INTO "files" VALUES('b',1,'EmbeddedArchive/2026-11-21/1/3e23e8160039594a33894f6564e1b134/col.bin','application/octet-stream',1,NULL,NULL,'2026-11-21T11:12:29.981',1.78406300074129831045e-03,'3e/3e23e8160039594a33894f6564e1b1348bbd7a00-dd3747da2c49419e88fd1f6807678b29');
INSERT INTO "files" VALUES('c.bin',1,'EmbeddedArchive/2026-11-21/1/c.bin','application/octet-stream',10,'1891650719','crc32c','2026-11-21T11:12:29.991',1.47809099871665239334e-03,'54/542b752d43224dbab0530f34eecfd4d89e286d64-c9031bc6159e46d58d77462cb2cd45d2');
INSERT INTO "files" VALUES('é/日本',1,'EmbeddedArchive/2026-11-21/1/col.bin','application/octet-stream',80000,'3125803588','crc32','2026-11-21T11:12:29.972',4.05639599921414628624e-03,'24/24068fa95581f8ba2d77561b1afe664b6a8dc4c6-eb9ba38876db494694fdeec1d2aa1efb');
CREATE TABLE volume (
    disk_id TEXT NOT NULL,
    installation_date TEXT NOT NULL,
    number_of_files INTEGER NOT NULL,
    bytes_stored INTEGER NOT NULL
);
INSERT INTO "volume" VALUES('f997aa084d304c94bc57c67d448f70c7','2026-11-21T11:12:29.831',5,80023);
CREATE INDEX files_by_date ON files (ingestion_date);
CREATE TRIGGER file_added AFTER INSERT ON files BEGIN
    UPDATE volume SET number_of_files = number_of_files + 1, bytes_stored = bytes_stored + NEW.file_size;
END;
CREATE TRIGGER file_removed AFTER DELETE ON files BEGIN
    UPDATE volume SET number_of_files = number_of_files - 1, bytes_stored = bytes_stored - OLD.file_size;
END;
COMMIT;
PRAGMA user_version = 1;
