-- Tusk is played in places that keep one UTC offset all year. A zone a phone reports that is not
-- here (or no zone at all) counts as UTC, rather than stopping the build.
select
    time_zone,
    utc_offset_minutes
from (
    values
        ('Africa/Lagos', 60),
        ('America/Bogota', -300),
        ('America/Sao_Paulo', -180),
        ('Asia/Bangkok', 420),
        ('Asia/Dubai', 240),
        ('Asia/Ho_Chi_Minh', 420),
        ('Asia/Jakarta', 420),
        ('Asia/Kolkata', 330),
        ('Asia/Manila', 480),
        ('Asia/Phnom_Penh', 420),
        ('Asia/Tokyo', 540),
        ('Europe/Istanbul', 180)
) as zones (time_zone, utc_offset_minutes)
